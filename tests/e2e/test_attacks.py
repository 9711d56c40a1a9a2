"""Attacks: after each, verdicts are those of the in-tree plugins, and new replicas get ready."""

import time
from collections.abc import Callable, Iterator

import pytest

from noderestrict.pki.issue import Leaf
from tests.e2e.attacks import (
    bodiless,
    chunked,
    connections,
    deletion,
    heavy_pods,
    silent,
    slow_header,
    wide_claim,
)
from tests.e2e.twins import (
    FLAGS,
    GRACE,
    SECRETS,
    Twins,
    question,
    until,
)
from tests.serving.tls import leaf, odd_certificates, write_pair

#: How long the API server remembers our authorizer's answers, seconds.
AUTHORIZED_TTL = 1.0


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("twins")
    with Twins.running(folder, *FLAGS) as running:
        yield running


def check(twins: Twins, name: str) -> None:
    """Move a pod, and see that both API servers agree about it, also by a new replica."""
    twins.move(name, "n2")
    twins.settles(name)
    twins.move(name, "n1")
    twins.settles(name)
    with twins.replica(*FLAGS) as replica:
        twins.until_ready(replica)


def test_a_claim_with_many_quantities_holds_nobody_up(twins: Twins) -> None:
    twins.start("beside", "n2")
    twins.settles("beside")
    with wide_claim(twins):
        twins.agrees("beside")
        twins.agrees("beside")
    check(twins, "beside")


@pytest.mark.parametrize(
    ("count", "sent"), [(16, chunked), (512, bodiless), (1100, silent), (300, slow_header)]
)
def test_connections_that_go_on_no_further_are_in_nobodys_way(
    twins: Twins, count: int, sent: Callable[[int], bytes]
) -> None:
    name = f"connected-{sent.__name__.replace('_', '-')}"
    twins.start(name, "n1")
    twins.settles(name)
    with connections(twins.port, count, sent):
        twins.agrees(name)
        twins.move(name, "n2")
        twins.settles(name)
    check(twins, name)


def test_connections_to_the_metrics_take_none_from_the_api_server(twins: Twins) -> None:
    with twins.instead(*FLAGS, files=1024):
        twins.start("scraped", "n1")
        twins.settles("scraped")
        with connections(twins.server.metrics_port, 1100, silent, tls=False):
            for _ in range(10):
                assert twins.server.request("/validate", deletion("scraped", "n2"))[0] == 200
            twins.move("scraped", "n2")
            twins.settles("scraped")
    check(twins, "scraped")


def test_bad_certificates_leave_the_last_good_one(twins: Twins) -> None:
    with twins.instead(*FLAGS, "--tls-poll", "0.05"):
        twins.start("certified", "n1")
        twins.settles("certified")
        folder = twins.replica_folder
        for what, certificate, key in [("nothing", b"", b""), *odd_certificates()]:
            write_pair(folder, Leaf(certificate, key))
            time.sleep(0.2)
            assert twins.server.request("/readyz")[0] == 200, what
        write_pair(folder, leaf(twins.control_plane.ca))
        twins.settles("certified")
    check(twins, "certified")


def test_pods_with_many_references_fill_no_memory(twins: Twins) -> None:
    twins.start("light", "n1")
    twins.settles("light")
    with heavy_pods(twins, 8) as secrets:
        questions = [question("n1", "GET", f"{SECRETS}/{name}") for name in secrets]
        until(
            "references over the bound are answered as in-tree",
            lambda: all(one.ours == one.in_tree for one in twins.ask_all(questions)),
            GRACE,
        )
        check(twins, "light")
    check(twins, "light")

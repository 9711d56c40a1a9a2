"""Attacks: after each, verdicts are those of the in-tree plugins, and new replicas get ready."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from noderestrict.pki.issue import Leaf
from tests.e2e.attacks import (
    LARGE,
    Poison,
    bodiless,
    chunked,
    connections,
    deletion,
    heavy_pods,
    others,
    poisoned,
    silent,
    slow_header,
    stolen_node,
    tenants_claim,
    tenants_pod,
    wide_claim,
)
from tests.e2e.control_plane import ISSUER
from tests.e2e.twins import (
    AUDIENCES,
    FLAGS,
    GRACE,
    NAMESPACED,
    PODS,
    SECRETS,
    Twins,
    question,
    token_request,
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


@pytest.mark.parametrize(
    ("poison", "size"),
    [
        (tenants_pod, 0),
        (tenants_pod, LARGE),
        (tenants_claim, LARGE),
        (stolen_node, LARGE),
        (others, 0),
        (others, LARGE),
    ],
)
def test_one_object_that_is_too_deep_freezes_no_store(
    twins: Twins, poison: Poison, size: int
) -> None:
    name = f"{poison.__name__.replace('_', '-')}-{size}"
    twins.start(name, "n1")
    twins.settles(name)
    with poisoned(twins, poison, size):
        check(twins, name)
    twins.move(name, "n2")
    twins.settles(name)


@pytest.mark.parametrize("how", ["part", "freeze"])
def test_what_a_store_allowed_ends_with_the_way_to_the_api_server(twins: Twins, how: str) -> None:
    """With all connections cut off, or with watches alone that only pretend to live."""
    staleness = 3.0
    with twins.instead(*FLAGS, "--max-staleness", str(staleness)):
        twins.start(f"departed-{how}", "n1")
        twins.settles(f"departed-{how}")
        getattr(twins.network, how)()
        try:
            twins.move(f"departed-{how}", "n2")
            time.sleep(staleness + AUTHORIZED_TTL)
            questions = twins.questions(f"departed-{how}")
            assert twins.wrongly_allowed(questions) == []
            assert twins.wrongly_allowed(questions) == []
        finally:
            twins.network.heal()
        twins.settles(f"departed-{how}")
    check(twins, f"departed-{how}")


def test_a_claim_with_many_quantities_holds_nobody_up(twins: Twins) -> None:
    twins.start("beside", "n2")
    twins.settles("beside")
    with wide_claim(twins):
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


def test_a_log_that_nobody_reads_stops_nothing(twins: Twins) -> None:
    reading = threading.Event()
    reading.set()
    with twins.instead(
        *FLAGS, "--log-level", "debug", on_line=lambda _line: reading.wait() and None
    ):
        twins.start("logged", "n1")
        twins.settles("logged")
        reading.clear()
        try:
            # Each is a refusal with a line; a pipe holds 64 KiB.
            for number in range(400):
                twins.server.request("/validate", deletion("logged", f"made-up-{number}"))
            twins.agrees("logged")
            twins.move("logged", "n2")
            twins.settles("logged")
        finally:
            reading.set()
    check(twins, "logged")


def test_odd_certificates_end_no_server(twins: Twins) -> None:
    with twins.instead(*FLAGS, "--tls-poll", "0.05"):
        twins.start("certified", "n1")
        twins.settles("certified")
        folder = twins.replica_folder
        for what, certificate, key in [("nothing", b"", b""), *odd_certificates()]:
            write_pair(folder, Leaf(certificate, key))
            time.sleep(0.2)
            # Some can be served, to who trusts them.
            assert twins.server.process.poll() is None, what
            assert "noderestrict_build_info" in twins.server.metrics(), what
        write_pair(folder, leaf(twins.control_plane.ca))
        twins.settles("certified")
    check(twins, "certified")


def test_pods_with_many_references_fill_no_memory(twins: Twins) -> None:
    twins.start("light", "n1")
    twins.settles("light")
    with heavy_pods(twins, 6) as secrets:
        questions = [question("n1", "GET", f"{SECRETS}/{name}") for name in secrets]
        until(
            "references over the bound are answered as in-tree",
            lambda: all(one.ours == one.in_tree for one in twins.ask_all(questions)),
            GRACE,
        )
        check(twins, "light")
    twins.move("light", "n2")
    twins.settles("light")


def test_the_api_audiences_are_asked_for_and_not_taken_for_the_issuer(twins: Twins) -> None:
    twins.start("audience", "n1")
    twins.settles("audience")
    uid = twins.admin.get(f"{PODS}/audience")["metadata"]["uid"]
    with twins.replica() as learning:
        twins.until_ready(learning)
        with twins.asking(learning):
            twins.settles("audience")
            answers = [
                twins.ask(
                    question("n1", "POST", f"{NAMESPACED}/serviceaccounts/web/token",
                             token_request("audience", uid, *audiences))
                )
                for audiences in ((), AUDIENCES[:1], (ISSUER,))
            ]  # fmt: skip
    assert [(one.in_tree, one.ours) for one in answers] == [
        ("allowed", "allowed"),
        ("refused 403", "refused 403"),
        ("refused 403", "refused 403"),
    ]

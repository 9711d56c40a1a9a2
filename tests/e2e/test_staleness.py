"""Cut off from the API server, a server allows nothing that is out of date."""

import time
from collections.abc import Iterator

import pytest

from tests.e2e.twins import FLAGS, GRACE, Twins, until

#: Seconds; bookmarks come every minute, so that most answers are confirmed all the time.
BOUND = 5.0
#: How long the API server remembers our authorizer's answers, seconds.
AUTHORIZED_TTL = 1.0


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("stale")
    with Twins.running(folder, *FLAGS, f"--max-staleness={BOUND}") as running:
        yield running


@pytest.mark.parametrize("reset", [True, False], ids=["connections reset", "held back"])
def test_nothing_is_allowed_by_stores_that_are_cut_off(twins: Twins, reset: bool) -> None:
    name = "reset" if reset else "held-back"
    twins.start(name, "n1")
    twins.settles(name)
    twins.network.part()
    try:
        twins.move(name, "n2")
        time.sleep(BOUND + AUTHORIZED_TTL)
        assert twins.wrongly_allowed(twins.questions(name)) == []
        until(
            "a server that can ask nothing is not ready",
            lambda: twins.server.request("/readyz")[0] == 503,
            10,
        )
    finally:
        twins.network.heal(reset=reset)
    twins.until_ready(twins.server, GRACE)
    twins.settles(name)
    with twins.replica(*FLAGS) as replica:
        twins.until_ready(replica)


def test_watches_that_only_pretend_to_live_are_as_good_as_none(twins: Twins) -> None:
    twins.start("pretends", "n1")
    twins.settles("pretends")
    twins.network.freeze()
    try:
        twins.move("pretends", "n2")
        time.sleep(BOUND + AUTHORIZED_TTL)
        assert twins.wrongly_allowed(twins.questions("pretends")) == []
        # Long before the watches are given up: what is asked anew comes through.
        twins.settles("pretends", 30)
        assert twins.server.request("/readyz")[0] == 200
    finally:
        twins.network.heal(reset=True)

"""A live cluster tells who holds its nodes by what it answers a node that is not there."""

from typing import Any

import msgspec
import pytest

from noderestrict.cluster.errors import ClusterError
from noderestrict.exposure.detect import Answers, ask, detect
from noderestrict.exposure.setups import Half
from noderestrict.graph.graph import Graph
from noderestrict.graph.rules import Access, authorize
from noderestrict.policy.features import defaults
from tests.exposure.clusters import api_server, object_of, world_of
from tests.exposure.test_exposure import BASE

PLUGIN = ClusterError("leases is forbidden: can only access node lease with the same name", 403)
OURS = ClusterError('admission webhook "leases.noderestrict.io" denied the request: no', 403)
MAY_NOT = ClusterError('users "system:node:x" is forbidden: User "u" cannot impersonate', 403)
AWAY = ClusterError("no answer", 500)
IN_TREE_REASON = "no relationship found between node 'noderestrict-doctor' and this object"
ASKED = Access(
    "noderestrict-doctor", "get", "", "secrets", "", "kube-system", "noderestrict-doctor"
)
OUR_REASON = authorize(ASKED, Graph(), defaults(36)).reason


class Server:
    """An API server that refuses writes, and answers SubjectAccessReviews."""

    def __init__(self, refusal: ClusterError | None, status: dict[str, Any] | ClusterError) -> None:
        self._refusal, self._status = refusal, status

    async def post(self, path: str, body: Any, **options: Any) -> bytes:
        if "subjectaccessreviews" in path:
            if isinstance(self._status, ClusterError):
                raise self._status
            return msgspec.json.encode({"status": self._status})
        assert options["query"] == {"dryRun": "All"}
        if self._refusal is not None:
            raise self._refusal
        return b"{}"


@pytest.mark.parametrize(
    ("refusal", "status", "halves"),
    [
        (PLUGIN, {"allowed": False, "reason": IN_TREE_REASON}, (Half.IN_TREE, Half.IN_TREE)),
        (OURS, {"allowed": False, "reason": OUR_REASON}, (Half.OURS, Half.OURS)),
        (None, {"allowed": True}, (Half.OFF, Half.OFF)),
        (MAY_NOT, {"allowed": False}, (None, None)),
        (AWAY, ClusterError("may not", 403), (None, None)),
    ],
)
async def test_answers_tell_who_holds_each_half(
    refusal: ClusterError | None, status: Any, halves: tuple[Half | None, Half | None]
) -> None:
    server: Any = Server(refusal, status)
    answers = await ask(server)
    told = [one and one[0] for one in (answers.admission, answers.authorizer)]
    assert tuple(told) == halves


def test_answers_count_more_than_what_shows() -> None:
    shown = [*(one for one in BASE if one["metadata"]["name"] != "kube-apiserver-cp"),
             api_server("cp", "--authorization-mode=RBAC"),
             object_of("ValidatingWebhookConfiguration", "noderestrict")]  # fmt: skip
    world = world_of(shown)
    assert detect(world)[0].admission is Half.OURS
    in_tree = (Half.IN_TREE, "it answers")
    set_up, why = detect(world, answers=Answers(in_tree, in_tree))
    assert set_up.id == "in-tree"
    assert why == "admission: it answers; authorizer: it answers"
    assert detect(world, answers=Answers())[0].id == "detected"

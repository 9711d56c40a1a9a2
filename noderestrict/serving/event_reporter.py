"""Events about nodes that were refused something."""

from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from noderestrict import admission
from noderestrict.policy.decision import Denied
from noderestrict.policy.modes import ENFORCE
from noderestrict.serving.reporter import Reporter

#: Reasons of Events.
REFUSED, WOULD_BE_REFUSED = "NodeRequestRefused", "NodeRequestWouldBeRefused"


class EventReporter(Reporter):
    """Hands on what admission refused a node.

    Dry runs have no Events, since a registration must not have side effects on them. Neither have
    reads, which kubelets repeat, nor agents, which are no nodes.

    Args:
        add: takes node, reason, rule and message; never waits.
    """

    def __init__(self, add: Callable[[str, str, str, str], None]) -> None:
        self._add = add

    def refused(
        self,
        http: web.BaseRequest,  # noqa: ARG002 (whoever asks, the node is to blame)
        request: admission.Request,
        denied: Denied,
        seconds: float,  # noqa: ARG002
        mode: str,
    ) -> None:
        """Hand on a denial, whether it is enforced or only reported."""
        of_node = request.agent is None and bool(request.node)
        # A 500 is no refusal: the kubelet is to ask again.
        if of_node and not request.dry_run and denied.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            reason = REFUSED if mode == ENFORCE else WOULD_BE_REFUSED
            self._add(request.node or "", reason, denied.rule, denied.message)

"""A known-bad review, judged periodically: if it ever passes, the server is not ready."""

import asyncio

from noderestrict import admission
from noderestrict.policy.decision import Denied
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_SECONDS = 30.0
# A node changes the labels of another node: no lookup, feature gate or object can allow that.
_KNOWN_BAD = b"""{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
"uid": "self-test", "operation": "UPDATE", "name": "self-test-b",
"resource": {"group": "", "version": "v1", "resource": "nodes"},
"kind": {"group": "", "version": "v1", "kind": "Node"},
"userInfo": {"username": "system:node:self-test-a",
  "groups": ["system:nodes", "system:authenticated"]},
"object": {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "self-test-b",
  "labels": {"node-restriction.kubernetes.io/a": "b"}}},
"oldObject": {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "self-test-b"}}}}"""


class SelfTest:
    """Judges the known-bad review.

    Args:
        metrics: shows the result.

    Attributes:
        passing: whether the review was refused last time.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.passing = True

    async def repeat(self) -> None:
        """Run the test every 30 seconds; an exception fails it too."""
        while True:
            passed = False
            try:
                passed = known_bad_is_refused()
            finally:
                self.passing = passed
                self._metrics.self_test.set(passed)
            if not passed:
                LOGGER.critical("a known-bad review was allowed: this server is not ready")
            await asyncio.sleep(_SECONDS)


def known_bad_is_refused() -> bool:
    """Return whether the whole decision path refuses the known-bad review."""
    request = admission.decode(_KNOWN_BAD)
    decision = admission.evaluate(request, Settings.for_version(), MemoryListers())
    return isinstance(decision, Denied) and b'"allowed":false' in admission.encode(
        request, decision
    )

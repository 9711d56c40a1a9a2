"""A known-bad review, judged again and again: if it ever passes, the server is not ready."""

from noderestrict import admission
from noderestrict.policy.decision import Denied
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings

# A node changes the labels of another node: no look-up, no gate and no state makes that good.
_KNOWN_BAD = b"""{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
"uid": "self-test", "operation": "UPDATE", "name": "self-test-b",
"resource": {"group": "", "version": "v1", "resource": "nodes"},
"kind": {"group": "", "version": "v1", "kind": "Node"},
"userInfo": {"username": "system:node:self-test-a",
  "groups": ["system:nodes", "system:authenticated"]},
"object": {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "self-test-b",
  "labels": {"node-restriction.kubernetes.io/a": "b"}}},
"oldObject": {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "self-test-b"}}}}"""


def known_bad_is_refused() -> bool:
    """Judge the known-bad review through the whole decision path."""
    request = admission.decode(_KNOWN_BAD)
    decision = admission.evaluate(request, Settings.for_version(), MemoryListers())
    return isinstance(decision, Denied) and b'"allowed":false' in admission.encode(
        request, decision
    )

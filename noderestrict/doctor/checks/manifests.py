"""Are the installed objects those that would be rendered now?"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.differences import Difference, differences
from noderestrict.doctor.findings import FAIL, WARN, Finding, passed
from noderestrict.doctor.installed import Installed, deleting, patching, title
from noderestrict.doctor.overlay import Rendering, rendering
from noderestrict.doctor.release import released
from noderestrict.doctor.restore import applying
from noderestrict.render.load import Object
from noderestrict.render.manifests import leftovers
from noderestrict.render.overlay import components

#: A component with a check of its own, which knows the modes of policies.
_POLICIES = "policies"
#: Another check compares it with what the servers expect.
_OTHER = "ValidatingWebhookConfiguration"
#: Differences of one object that get a finding of their own.
_SHOWN = 20
_RIGHTS = frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})
#: What gives rights to others, or takes calls or rules away, if it is changed.
_GRAVE = _RIGHTS | {
    "Service", "ServiceAccount", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
}  # fmt: skip
#: What separates our pods from their node, and others from their credentials.
_ISOLATING = frozenset(
    ("affinity", "automountServiceAccountToken", "command", "ephemeralContainers", "hostIPC",
     "hostNetwork", "hostPID", "initContainers", "nodeSelector", "securityContext",
     "serviceAccountName", "shareProcessNamespace", "volumeMounts", "volumes")
)  # fmt: skip
#: The others work without them.
_DISPENSABLE = frozenset({"NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "PrometheusRule",
                          "ServiceMonitor"})  # fmt: skip
#: An API server refuses to change them.
_IMMUTABLE = {
    "ClusterRoleBinding": "/roleRef", "RoleBinding": "/roleRef", "Secret": "/type",
    "DaemonSet": "/spec/selector", "Deployment": "/spec/selector",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Compared:
    """An object, and how the installed one differs from it.

    Attributes:
        value: the rendered object, or one that must not exist.
        exists: whether it is installed.
        differences: none if it is as it should be.
    """

    value: Object
    exists: bool
    differences: Sequence[Difference]


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield each difference between what is installed and what would be rendered now."""
    wanted = await rendering(cluster)
    if wanted is None:
        # Our servers do not run as pods.
        return
    installed, name = Installed(cluster), f"overlay {wanted.overlay}"
    objects = await released(cluster, wanted.release) if wanted.release else None
    if objects is None:
        compared = await _with_components(installed, wanted)
    else:
        name = f"release {wanted.release}"
        compared = await _compared(installed, [one for one in objects if one["kind"] != _OTHER])
    own = {(one.value["kind"], one.value["metadata"]["name"]) for one in compared}
    for value in leftovers(wanted.files)[wanted.overlay]:
        if (value["kind"], value["metadata"]["name"]) not in own:
            found = await installed.find(value)
            compared.append(_Compared(value, found is not None, differences(found, None)))
    again = applying(cluster.options, wanted.overlay, *wanted.flags, release=wanted.release)
    findings = [finding for one in compared for finding in _findings(one, again)]
    for finding in findings or [passed(f"{name} is installed as rendered")]:
        yield finding


async def _with_components(installed: Installed, wanted: Rendering) -> list[_Compared]:
    """Compare with the overlay, and with those components that explain more than they miss."""
    objects = wanted.objects()
    best = await _compared(installed, objects)
    for component in components(wanted.files):
        if component == _POLICIES:
            continue
        changed = wanted.with_component(component, objects)
        found = await _compared(installed, changed)
        own = sum(one.exists for one in found[len(best) :])
        fewer = _count(best) + own - _count(found)
        if fewer > 0 or (own and fewer == 0):
            objects, best = changed, found
    return best


async def _compared(installed: Installed, rendered: Sequence[Object]) -> list[_Compared]:
    compared = []
    for value in rendered:
        found = await installed.find(value)
        compared.append(_Compared(value, found is not None, differences(found, value)))
    return compared


def _count(compared: Sequence[_Compared]) -> int:
    return sum(len(one.differences) for one in compared)


def _findings(compared: _Compared, again: str) -> Iterator[Finding]:
    """Yield a finding for each difference of an object, the last one for all that are left."""
    value, found = compared.value, compared.differences
    # One command for all: half of a change may be invalid.
    command = _command(value, found, again)
    for number, difference in enumerate(found[:_SHOWN], 1):
        rest = found[number:] if number == _SHOWN else []
        more = f", and {len(rest)} more differences" if rest else ""
        some = [difference, *rest]
        status = FAIL if any(_is_grave(value, one) for one in some) else WARN
        yield Finding(
            status,
            f"{title(value)}{'' if not difference.path else ':'} {difference}{more}",
            _remedy(difference, status),
            command,
            tuple(one.operation() for one in some),
        )


def _is_grave(value: Mapping[str, Any], difference: Difference) -> bool:
    kind = value["kind"]
    if not difference.path:
        # Of another overlay, or missing.
        return kind in _RIGHTS if difference.is_surplus else kind not in _DISPENSABLE
    return kind in _GRAVE or not _ISOLATING.isdisjoint(difference.path.split("/"))


def _remedy(difference: Difference, status: str) -> str:
    if not difference.path:
        if difference.is_surplus:
            return 'delete what another overlay left; see "Another overlay" in docs/install.md'
        return "install it again"
    unless = "" if status == FAIL else ", unless somebody has changed it on purpose"
    return f"put back what was rendered{unless}"


def _command(value: Mapping[str, Any], found: Sequence[Difference], again: str) -> str:
    if any(not one.path for one in found):
        return deleting(value) if found[0].is_surplus else again
    fixed = _IMMUTABLE.get(value["kind"])
    if fixed and any(one.path.startswith(fixed) for one in found):
        return f"{deleting(value)}\n{again}"
    return patching(value, found)


CHECK = Check("manifests", "Are the installed objects those that would be rendered now?", check)

"""Does the server have the permissions that it needs, and no dangerous ones?"""

import shlex
from collections.abc import AsyncIterator, Sequence

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.findings import Finding, failed, passed
from noderestrict.doctor.permissions import (
    Permission,
    changes_of_registration,
    granted,
    listed,
    revoking,
)
from noderestrict.doctor.servers import serving
from noderestrict.doctor.workloads import Workload, setting
from noderestrict.rbac.subjects import ACCOUNT_PREFIX
from noderestrict.render.load import Object, documents
from noderestrict.render.registration import NAME, cluster_role

_EVENTS = "manifests/components/events/rbac.yaml"
_REPORT = "events"
#: What a server that only reads must not be allowed to do.
_DANGEROUS = (
    Permission("get", "", "secrets"),
    Permission("create", "", "secrets"),
    Permission("create", "", "pods"),
    Permission("update", "", "nodes"),
    Permission("impersonate", "", "users"),
)


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield missing and dangerous permissions of the server's user."""
    user = cluster.options.server_user
    missing = await _missing(cluster, user, _demanded(cluster_role()))
    role, _ = documents(_EVENTS)
    unreported = []
    if any(_reports(one) for one in await serving(cluster)):
        unreported = await _missing(cluster, user, _demanded(role))
    changes = changes_of_registration(cluster.options.configuration)
    dangerous = await granted(cluster, user, (*_DANGEROUS, *changes))
    if missing:
        yield failed(f"{user} cannot {listed(missing)}", "grant it", _granting(user))
    if unreported:
        yield failed(
            f"{user} cannot {listed(unreported)} in namespace {role['metadata']['namespace']}, "
            "which --events needs",
            "grant it, or run the servers without --events",
            f"kubectl apply -f {_EVENTS}",
        )
    if dangerous:
        yield failed(
            f"{user} can {listed(dangerous)}, which it never needs",
            "remove what grants this: the server only reads",
            await revoking(cluster, user, dangerous),
        )
    if not missing and not unreported and not dangerous:
        yield passed(f"{user} has the permissions that it needs, and no dangerous ones")


def _demanded(role: Object) -> list[Permission]:
    namespace = role["metadata"].get("namespace", "")
    return [
        Permission(verb, group, resource, name, namespace)
        for rule in role["rules"]
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
        for name in rule.get("resourceNames") or ("",)
        for verb in rule["verbs"]
    ]


async def _missing(cluster: Cluster, user: str, demanded: Sequence[Permission]) -> list[Permission]:
    has = await granted(cluster, user, demanded)
    return [one for one in demanded if one not in has]


def _reports(workload: Workload) -> bool:
    """Tell whether servers write Events."""
    return any(
        setting(one, _REPORT)[:1] not in ([], ["false"])
        for one in workload.pod_spec.get("containers") or ()
    )


def _granting(user: str) -> str:
    command = "kubectl apply -f manifests/base/rbac.yaml"
    if user == Options().server_user:
        return command
    binding = f"{NAME}-{user.rpartition(':')[2]}"
    subject = f"--user={user}"
    if user.startswith(ACCOUNT_PREFIX):
        subject = f"--serviceaccount={user.removeprefix(ACCOUNT_PREFIX)}"
    words = ["kubectl", "create", "clusterrolebinding", binding, f"--clusterrole={NAME}", subject]
    return f"{command}\n{shlex.join(words)}"


CHECK = Check("rights", "Does the server have the permissions it needs, and no others?", check)

"""Does the server have the permissions that it needs, and no dangerous ones?"""

import shlex
from collections.abc import AsyncIterator

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
from noderestrict.rbac.subjects import ACCOUNT_PREFIX
from noderestrict.render.registration import NAME, cluster_role

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
    needed = [
        Permission(verb, group, resource, name)
        for rule in cluster_role()["rules"]
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
        for name in rule.get("resourceNames") or ("",)
        for verb in rule["verbs"]
    ]
    has = await granted(cluster, user, needed)
    missing = [permission for permission in needed if permission not in has]
    changes = changes_of_registration(cluster.options.configuration)
    dangerous = await granted(cluster, user, (*_DANGEROUS, *changes))
    if missing:
        yield failed(f"{user} cannot {listed(missing)}", "grant it", _granting(user))
    if dangerous:
        yield failed(
            f"{user} can {listed(dangerous)}, which it never needs",
            "remove what grants this: the server only reads",
            await revoking(cluster, user, dangerous),
        )
    if not missing and not dangerous:
        yield passed(f"{user} has the permissions that it needs, and no dangerous ones")


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

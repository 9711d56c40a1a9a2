"""Has an older version of the manifests left dangerous objects behind?"""

from collections.abc import AsyncIterator

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed
from noderestrict.render.workload import NAMESPACE

_OLD = "noderestrict-certs"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
#: Of the former certificate job: its token never expires and may change the registration.
_OBJECTS = {
    f"Secret {NAMESPACE}/{_OLD}-token": f"/api/v1/namespaces/{NAMESPACE}/secrets/{_OLD}-token",
    f"ServiceAccount {NAMESPACE}/{_OLD}": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{_OLD}",
    f"CronJob {NAMESPACE}/{_OLD}": f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{_OLD}",
    f"Job {NAMESPACE}/{_OLD}": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{_OLD}",
    f"RoleBinding {NAMESPACE}/{_OLD}": f"{_RBAC}/namespaces/{NAMESPACE}/rolebindings/{_OLD}",
    f"ClusterRoleBinding {_OLD}": f"{_RBAC}/clusterrolebindings/{_OLD}",
}


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield the objects that are left."""
    found = [name for name, path in _OBJECTS.items() if await cluster.find(path) is not None]
    if found:
        yield failed(
            f"{', '.join(found)} still exist{'s' if len(found) == 1 else ''}: a token that never "
            "expires may change the registration",
            'delete them; see "Upgrade" in docs/install.md',
            "\n".join(map(_deleting, found)),
        )
    else:
        yield passed("none left")


def _deleting(name: str) -> str:
    kind, _, place = name.partition(" ")
    namespace, slash, name = place.rpartition("/")
    where = f"-n {namespace} " if slash else ""
    return f"kubectl {where}delete {kind.lower()} {name}"


CHECK = Check("old manifests", "Has an older version left dangerous objects behind?", check)

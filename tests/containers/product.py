"""noderestrict in a cluster, by the commands of docs/install.md."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderestrict.render.workload import NAMESPACE
from tests.containers.cluster import Cluster, run, until

ROOT = Path(__file__).parents[2]
PART_OF_US = "app.kubernetes.io/part-of=noderestrict"
#: The overlay that the documents take for their example, and what it runs.
EXAMPLE = "control-plane"
EXAMPLE_WORKLOAD = "daemonset/noderestrict-control-plane"
#: The overlays that need nothing else in the cluster, and all.
PLAIN_OVERLAYS = ("audit", "control-plane", "self-signed")
OVERLAYS = (*PLAIN_OVERLAYS, "cert-manager")
CERTIFICATES = "manifests/overlays/cert-manager/install/certificates.yaml"
#: What applies manifests: kubectl as documented, kubectl server-side, a GitOps tool.
GITOPS = "GitOps"
WAYS = {
    "client-side": "kubectl apply",
    "server-side": "kubectl apply --server-side --force-conflicts",
    GITOPS: "kubectl apply --server-side --force-conflicts --field-manager=tool -o name",
}


def commands(heading: str) -> list[str]:
    """Return the commands of a section of docs/install.md, in their order.

    Args:
        heading: with its signs.
    """
    text = (ROOT / "docs" / "install.md").read_text()
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^ *\$ (.*)$", section, re.MULTILINE)
    assert found, f"docs/install.md has no commands under {heading}"
    return found


@dataclass
class Product:
    """What is installed of us in a cluster.

    Attributes:
        overlay: the one that was installed last, or None.
        applied: names of the objects that a GitOps tool has applied.
        folder: with the manifests.
        holds_agents: whether they are rendered with policies of agents.
    """

    cluster: Cluster
    overlay: str | None = None
    applied: frozenset[str] = frozenset()
    folder: Path = ROOT
    holds_agents: bool = False

    def run(self, command: str, folder: Path | None = None) -> str:
        """Return the output of a documented command, run in a folder, that of the manifests."""
        path = Path(sys.executable).parent
        return run(
            *self.cluster.local("env", f"KUBECONFIG={self.cluster.kubeconfig}"),
            "bash", "-e", "-o", "pipefail", "-c",
            f'cd "{folder or self.folder}"; PATH="{path}:$PATH"; {command}',
        )  # fmt: skip

    def hold_agents(self, folder: Path, policy: Path) -> None:
        """Install from now on what is rendered with a policy, in a folder."""
        self.folder, self.holds_agents = folder, True
        self.run(f"noderestrict render manifests --agents {policy}")

    def install(self, overlay: str, way: str = "client-side") -> None:
        """Install an overlay as documented, after the one that is there.

        Args:
            overlay: its name.
            way: of those in WAYS.
        """
        audit, leave_audit = commands("## Audit")[:4], commands("## Audit")[4:]
        leaves_audit = self.overlay == "audit" != overlay
        steps = audit if overlay == "audit" else commands("## Enforce")
        steps = (leave_audit if leaves_audit else []) + steps
        if self.holds_agents:
            # It fails without the authorizer, and so it is left to whoever installs that.
            steps = [one for one in steps if not one.startswith("noderestrict doctor")]
        if way == GITOPS:
            self._synchronize(overlay, steps)
        else:
            for step in steps:
                self.run(here(step, overlay).replace("kubectl apply", WAYS[way]))
        if self.overlay == "cert-manager" != overlay and way != GITOPS:
            self.run(f"kubectl delete --ignore-not-found -f {CERTIFICATES}")
        if overlay == "audit" and self.overlay not in {None, "audit"}:
            self.run(f"kubectl -n {NAMESPACE} delete secret noderestrict-ca")
            if way != GITOPS:
                leftovers = "manifests/overlays/audit/leftovers.yaml"
                self.run(f"kubectl delete --ignore-not-found -f {leftovers}")
        self.overlay = overlay

    def _synchronize(self, overlay: str, steps: list[str]) -> None:
        """Do as a GitOps tool does: apply, wait, apply the registration, and prune at the end.

        Args:
            overlay: that a repository has now.
            steps: that install it without the tool. What only an operator may do is still done so.
        """
        repository = self.cluster.folder / "repository"
        repository.mkdir(exist_ok=True)
        self.run("noderestrict render manifests", repository)
        applied: set[str] = set()

        def apply(part: str) -> None:
            folder = f"manifests/overlays/{overlay}/{part}"
            applied.update(self.run(f"{WAYS[GITOPS]} -k {folder}", repository).split())

        for step in steps:
            if "kubectl apply" in step:
                apply("install")
            elif "--registration" in step:
                for command in commands("## GitOps"):
                    self.run(command, repository)
                apply("enforce")
            elif "leftovers" not in step:
                self.run(here(step, overlay))
        for name in sorted(self.applied - applied):
            self.cluster.kubectl("delete", name, "-n", NAMESPACE, "--ignore-not-found")
        self.applied = frozenset(applied)

    def uninstall(self) -> None:
        """Uninstall as documented."""
        assert self.overlay is not None
        for step in commands("## Uninstall"):
            self.run(here(step, self.overlay))
        self.overlay = None

    def remove(self) -> None:
        """Remove all that was ever installed, without the documents' help."""
        kubectl = self.cluster.kubectl
        admission = "validatingwebhookconfigurations,validatingadmissionpolicies"
        for kinds in (admission, "validatingadmissionpolicybindings", "clusterroles",
                      "clusterrolebindings"):  # fmt: skip
            kubectl("delete", kinds, "--ignore-not-found", "-l", PART_OF_US)
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
        self.overlay, self.applied = None, frozenset()

    def workload(self) -> dict[str, Any]:
        """Return the Deployment or DaemonSet that serves."""
        name = EXAMPLE_WORKLOAD if self.overlay == EXAMPLE else "deployment/noderestrict"
        found: dict[str, Any] = self.cluster.kubectl.json("get", name, "-n", NAMESPACE)
        return found

    def ready(self) -> None:
        """Wait until each server is ready, and none is of an earlier version."""
        until("our servers are ready", lambda: rolled_out(self.workload()))

    def restart(self) -> None:
        """Replace each server."""
        kind, name = self.workload()["kind"], self.workload()["metadata"]["name"]
        self.cluster.kubectl("rollout", "restart", f"{kind}/{name}", "-n", NAMESPACE)
        self.ready()

    def pods(self) -> list[dict[str, Any]]:
        """Return our servers' pods that are not being deleted."""
        labels = self.workload()["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = self.cluster.kubectl.json("get", "pods", "-n", NAMESPACE, "-l", selector)["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def objects(self) -> set[str]:
        """Return kinds and names of all that is left in our namespace or says that it is ours."""
        kubectl = self.cluster.kubectl
        kinds = kubectl("api-resources", "--verbs=list,delete", "--namespaced", "-o", "name")
        skipped = {"events", "events.events.k8s.io", "pods", "replicasets.apps", "jobs.batch",
                   "endpoints", "endpointslices.discovery.k8s.io", "controllerrevisions.apps",
                   "leases.coordination.k8s.io", "certificaterequests.cert-manager.io"}  # fmt: skip
        wanted = ",".join(sorted(set(kinds.split()) - skipped))
        ours = kubectl("get", wanted, "-n", NAMESPACE, "-o", "name", "--ignore-not-found")
        cluster_wide = kubectl(
            "get", "-l", PART_OF_US, "-o", "name",
            "namespaces,clusterroles,clusterrolebindings,validatingwebhookconfigurations,"
            "validatingadmissionpolicies,validatingadmissionpolicybindings",
        )  # fmt: skip
        made_by_kubernetes = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
        return set((ours + cluster_wide).split()) - made_by_kubernetes


def here(step: str, overlay: str) -> str:
    """Return a documented command for another overlay than the documents have."""
    if overlay == EXAMPLE:
        return step
    if "noderestrict doctor" in step:
        # It warns of the Service on the way, with reason.
        return "true"
    workload = step.replace(EXAMPLE_WORKLOAD, "deployment/noderestrict")
    return workload.replace(f"overlays/{EXAMPLE}/", f"overlays/{overlay}/")


def rolled_out(workload: dict[str, Any]) -> bool:
    """Tell whether all pods of a Deployment or DaemonSet are ready and of its newest version."""
    status = workload["status"]
    if status.get("observedGeneration") != workload["metadata"]["generation"]:
        return False
    if workload["kind"] == "DaemonSet":
        counts = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
        wanted = status["desiredNumberScheduled"]
    else:
        counts = ("replicas", "updatedReplicas", "readyReplicas")
        wanted = workload["spec"]["replicas"]
    return all(status.get(one, 0) == wanted for one in counts)

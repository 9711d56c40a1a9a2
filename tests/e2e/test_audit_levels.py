"""The audit logs of two API servers, judged as the in-tree plugin judged the same requests.

Neither API server has the plugin. Real kubelets with hollow containers use them, one each, while
controllers, a scheduler and an administrator write through either; and stolen credentials try what
they must not. Each write of a node is first tried on a third API server that has the plugin.
"""

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.audit.log import AuditLog
from noderestrict.replay.audit.read import events
from noderestrict.replay.results import NotJudged, Result, Undecided
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import APIError, Client, ControlPlane
from tests.e2e.tee import Tee, Verdict, Verdicts
from tests.e2e.test_hollow_nodes import DEPLOYMENTS, deployment, until

pytestmark = pytest.mark.long

NAMES = ("hollow-1", "hollow-2")
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON, JSON_PATCH = "application/json", "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
NODES, NAMESPACED = "/api/v1/nodes", "/api/v1/namespaces/default"
PODS, CLAIMS = f"{NAMESPACED}/pods", f"{NAMESPACED}/persistentvolumeclaims"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
GUARDED = "node-restriction.kubernetes.io"
POINTER = "/metadata/labels/node-restriction.kubernetes.io~1"
#: How long kubelets are watched at each level, beside what is done to them, seconds.
STEADY = float(os.environ.get("NODERESTRICT_E2E_STEADY_SECONDS", "15"))
#: How long pods may take to start and to end where all of this shares two slow cores, seconds.
PATIENCE = 300
#: The largest share of kubelets' writes that may be undecided.
MOST_UNDECIDED = {"RequestResponse": 0.01, "Request": 0.10}


def policy(level: str) -> dict[str, Any]:
    """Return an audit policy that logs all writes at one level."""
    reads = {"level": "None", "verbs": ["get", "list", "watch"]}
    rules = [reads, {"level": level}]
    if level == "standard":
        # As many clusters have it, after the scripts that made clusters on Google's cloud.
        status = {"group": "", "resources": ["nodes/status", "pods/status"]}
        secret = {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]}
        groups = ["", "apps", "coordination.k8s.io", "policy", "resource.k8s.io", "storage.k8s.io"]
        rules = [
            reads,
            {"level": "Request", "userGroups": ["system:nodes"], "verbs": ["update", "patch"],
             "resources": [status]},
            {"level": "Metadata", "resources": [secret]},
            {"level": "RequestResponse", "resources": [{"group": group} for group in groups]},
            {"level": "Metadata"},
        ]  # fmt: skip
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}


class Servers:
    """Two API servers without the plugin, one with it, and two kubelets."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self.control_plane, self.folder = control_plane, folder
        self.admin = control_plane.admin
        self.second_port = 0
        self.verdicts = Verdicts()
        self.tees: dict[str, Tee] = {}

    def flags(self, level: str, server: str) -> dict[str, str]:
        (self.folder / f"{level}.yaml").write_text(yaml.safe_dump(policy(level)))
        return {
            "disable-admission-plugins": "NodeRestriction",
            "audit-policy-file": str(self.folder / f"{level}.yaml"),
            "audit-log-path": str(self.log(level, server)),
        }

    def log(self, level: str, server: str) -> Path:
        return self.folder / f"{level}-{server}.log"

    def log_at(self, level: str) -> None:
        """Let both API servers start again, with the policy of a level."""
        plane = self.control_plane
        for name, port in (("kube-apiserver", plane.port), ("second", self.second_port)):
            plane.stop_process(name)
            plane.start_another(name, self.flags(level, name), port)
        plane.wait_ready()
        second = plane.user("second-admin", "system:masters", self.second_port)
        until("the second API server is ready", lambda: answers(second))
        self.second = second
        self.verdicts.found.clear()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("levels")
    (folder / "None.yaml").write_text(yaml.safe_dump(policy("None")))
    control_plane = ControlPlane({"disable-admission-plugins": "NodeRestriction"})
    try:
        control_plane.needs("kubemark", "kube-controller-manager", "kube-scheduler")
        running = Servers(control_plane, folder)
        namespace_ready(running.admin)
        let_nodes_write(running.admin)
        running.second_port = control_plane.start_another("second", running.flags("None", "second"))
        plugin_flags = {
            "enable-admission-plugins": "NodeRestriction", "disable-admission-plugins": "",
        }  # fmt: skip
        plugin_port = control_plane.start_another("plugin", plugin_flags)
        probe = control_plane.user("probe", "system:masters", plugin_port)
        until("the API server with the plugin is ready", lambda: answers(probe))
        control_plane.start_controllers("*", "--node-monitor-grace-period=50s")
        control_plane.start_scheduler()
        with contextlib.ExitStack() as stack:
            for name, port in zip(NAMES, (control_plane.port, running.second_port), strict=True):
                tee = Tee(control_plane, name, port, plugin_port, running.verdicts)
                running.tees[name] = stack.enter_context(tee.running())
                control_plane.start_hollow_node(name, tee.port)
            until("nodes are ready", lambda: ready(running.admin) == set(NAMES), PATIENCE)
            # Controllers that are still starting do not outlive an API server that starts again.
            running.admin.create(DEPLOYMENTS, deployment(2))
            for replicas in (2, 0):
                scale(running.admin, replicas)
            yield running
            control_plane.stop()
    finally:
        control_plane.stop()


def answers(client: Client) -> bool:
    try:
        return bool(client.get("/api/v1/namespaces/default"))
    except (OSError, APIError):
        return False


def ready(admin: Client) -> set[str]:
    return {
        node["metadata"]["name"]
        for node in admin.get(NODES)["items"]
        for condition in node["status"].get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def let_nodes_write(admin: Client) -> None:
    """Let nodes write everything, but use no verbs beyond that, so that the plugin decides."""
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]
    group = "rbac.authorization.k8s.io"
    admin.create(f"{RBAC}/clusterroles", {"apiVersion": f"{group}/v1", "kind": "ClusterRole",
                 "metadata": {"name": "write"}, "rules": rules})  # fmt: skip
    admin.create(f"{RBAC}/clusterrolebindings", {
        "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "write"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "write"},
        "subjects": [{"kind": "Group", "apiGroup": group, "name": "system:nodes"}],
    })  # fmt: skip


class Thief:
    """Uses a node's credential for what its kubelet would not do."""

    def __init__(self, tee: Tee, admin: Client, me: str, other: str, tag: str) -> None:
        self._tee, self._admin = tee, admin
        self.me, self.other, self.tag = me, other, tag

    def send(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> Any:
        data = None if body is None else json.dumps(body).encode()
        _, answer = self._tee.send(method, path, data, content_type)
        try:
            return json.loads(answer)
        except ValueError:
            return {}

    def label(self, name: str, value: str | None) -> None:
        """Let the administrator set or remove a guarded label."""
        labels = {f"{GUARDED}/{self.tag}-{name}": value}
        self._admin.patch(f"{NODES}/{self.me}", {"metadata": {"labels": labels}})

    def key(self, name: str) -> str:
        return f"{GUARDED}/{self.tag}-{name}"

    def patches_its_node(self) -> None:
        """Try each kind of patch on labels, some of which change nothing."""
        own, status = f"{NODES}/{self.me}", f"{NODES}/{self.me}/status"
        key, send = self.key, self.send
        for path in (own, status):
            sub = path.rpartition("/")[2][:3]
            for kind in (MERGE, STRATEGIC):
                sets = {"metadata": {"labels": {key(f"{sub}{kind[12:15]}"): "x"}}}
                send("PATCH", path, sets, kind)
                send("PATCH", path, sets, kind)  # It is there already.
            send("PATCH", path, [{"op": "add", "path": f"{POINTER}{self.tag}-j{sub}",
                                  "value": "x"}], JSON_PATCH)  # fmt: skip
            send("PATCH", path, [{"op": "remove", "path": f"{POINTER}{self.tag}-j{sub}"}],
                 JSON_PATCH)  # fmt: skip
            self.label(f"r{sub}", "x")
            send("PATCH", path, {"metadata": {"labels": {key(f"r{sub}"): None}}}, STRATEGIC)
        self.label("there", "x")
        send("PATCH", own, {"metadata": {"labels": {key("there"): "x"}}}, MERGE)
        send("PATCH", own, {"metadata": {"labels": {"example.com/a": self.tag}}}, MERGE)
        send("PATCH", f"{own}?dryRun=All", {"metadata": {"labels": {key("dry"): "x"}}}, MERGE)
        send("PATCH", status, {"status": {"phase": "Running"}}, STRATEGIC)
        send("PATCH", f"{NODES}/{self.other}/status", {"status": {"phase": "Running"}}, STRATEGIC)
        send("PATCH", f"{NODES}/{self.other}", {"metadata": {"labels": {"a": "b"}}}, MERGE)
        taint = {"key": f"example.com/{self.tag}", "effect": "PreferNoSchedule"}
        for path in (own, status):
            send("PATCH", path, {"spec": {"taints": [taint]}}, MERGE)
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": f"u-{self.tag}"}
        references = {"metadata": {"ownerReferences": [owner]}}
        send("PATCH", own, references, STRATEGIC)
        send("PATCH", own, {"metadata": {"ownerReferences": [
            {"$patch": "delete", "uid": owner["uid"]}]}}, STRATEGIC)  # fmt: skip
        send("PATCH", own, {"metadata": {"annotations": {"example.com/a": self.tag}}}, MERGE)

    def applies(self) -> None:
        """Set a label by server-side apply, and remove it by leaving it out."""
        path = f"{NODES}/{self.me}?fieldManager=thief-{self.tag}&force=true"
        for labels in ({self.key("ssa"): "x", "example.com/b": "c"}, {"example.com/b": "c"}):
            metadata = {"name": self.me, "labels": labels}
            body = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
            self.send("PATCH", path, body, APPLY)

    def puts(self) -> None:
        """Replace its Node: changed, unchanged, and as it was before somebody else changed it."""
        own = f"{NODES}/{self.me}"
        self.put(own, lambda _: None)
        self.put(own, lambda node: node["metadata"]["labels"].update({self.key("put"): "x"}))
        self.put(f"{own}/status", lambda node: node["metadata"]["labels"].pop(self.key("put"), 0))
        self.put(
            own, lambda node: node["metadata"].setdefault("annotations", {}).update(a=self.tag)
        )
        stale = self.send("GET", own)
        self.label("conflict", "x")
        self.send("PUT", own, stale)
        new = {"apiVersion": "v1", "kind": "Node",
               "metadata": {"name": self.me, "labels": {self.key("new"): "x"}}}  # fmt: skip
        self.send("POST", NODES, new)
        self.send("POST", NODES, {**new, "metadata": {"name": f"stranger-{self.tag}"}})

    def put(self, path: str, change: Callable[[Any], Any]) -> None:
        for _ in range(5):
            node = self.send("GET", path.removesuffix("/status"))
            change(node)
            if self.send("PUT", path, node).get("kind") == "Node":
                return

    def meddles_with_pods(self, pods: list[dict[str, Any]]) -> None:
        """Write pods of this node and of another one."""
        for pod in pods:
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            status = f"{PODS}/{name}/status"
            self.send("PATCH", status, {"metadata": {"uid": uid}, "status": {"message": self.tag}},
                      STRATEGIC)  # fmt: skip
            self.send("PATCH", status, {"metadata": {"labels": {"app": self.tag}}}, MERGE)
            self.send("PATCH", status, {"metadata": {"labels": {"app": "web"}}}, MERGE)
            self.send("PATCH", f"{PODS}/{name}", {"metadata": {"labels": {"x": "y"}}}, MERGE)
            claims = [{"name": "c", "resourceClaimName": "d"}]
            self.send("PATCH", status, {"status": {"resourceClaimStatuses": claims}}, STRATEGIC)
            reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
            for audiences in ([], ["vault"]):
                asked = {"audiences": audiences, "boundObjectRef": reference}
                body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
                path = f"{NAMESPACED}/serviceaccounts/default/token"
                self.send("POST", path, {**body, "spec": asked})
        spec: dict[str, Any] = {"nodeName": self.me, "containers": [{"name": "c", "image": "p"}],
                "automountServiceAccountToken": False}  # fmt: skip
        mine = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
        self.send("POST", PODS, {**mine, "metadata": {"name": f"mine-{self.tag}"}})
        uid = self._admin.get(f"{NODES}/{self.me}")["metadata"]["uid"]
        for at, owner in enumerate((uid, "forged")):
            metadata = {
                "name": f"mirror-{self.tag}-{at}",
                "annotations": {"kubernetes.io/config.mirror": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": self.me,
                                     "uid": owner, "controller": True}],
            }  # fmt: skip
            self.send("POST", f"{PODS}?dryRun=All", {**mine, "metadata": metadata})
        for pod in pods:
            name = pod["metadata"]["name"]
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            self.send("POST", f"{PODS}/{name}/eviction?dryRun=All", eviction)
            self.send("DELETE", f"{PODS}/{name}?dryRun=All")

    def meddles_with_the_rest(self) -> None:
        """Write leases, CSINodes, slices, claims and requests for certificates."""
        for name in (self.other, f"elsewhere-{self.tag}"):
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": name}}  # fmt: skip
            self.send("POST", LEASES, body)
            self.send("PATCH", f"{LEASES}/{name}", {"spec": {"holderIdentity": "x"}}, MERGE)
            self.send("PATCH", f"{CSI_NODES}/{name}", {"metadata": {"labels": {"a": "b"}}}, MERGE)
        pool = {"name": "p", "generation": 1, "resourceSliceCount": 1}
        for name in (self.me, self.other):
            spec = {"driver": "d.example.com", "nodeName": name, "pool": pool, "devices": []}
            made = self.send("POST", SLICES, {
                "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
                "metadata": {"name": f"slice-{self.tag}-{name}"}, "spec": spec})  # fmt: skip
            made_name = made.get("metadata", {}).get("name", "x")
            self.send("DELETE", f"{SLICES}?fieldSelector=spec.nodeName%3D{name}&dryRun=All")
            self.send("DELETE", f"{SLICES}/{made_name}")
        name = f"claim-{self.tag}"
        self._admin.create(CLAIMS, {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
                     "resources": {"requests": {"storage": "1Gi"}}}})  # fmt: skip
        status = f"{CLAIMS}/{name}/status"
        self.send("PATCH", status, {"status": {"capacity": {"storage": "2Gi"}}}, STRATEGIC)
        self.send("PATCH", status, {"status": {"phase": "Lost"}}, STRATEGIC)
        self.send("PATCH", status, {"metadata": {"labels": {"a": "b"}}}, MERGE)
        self.send("PATCH", f"{CLAIMS}/{name}", {"metadata": {"labels": {"a": "b"}}}, MERGE)
        self.send("POST", f"{NAMESPACED}/configmaps", {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"generateName": "own-"}})  # fmt: skip


def live_through(servers: Servers, level: str) -> None:
    """Let everybody do what they do, for a while."""
    admin, tag = servers.admin, level[-3:].lower()
    done = threading.Event()

    def administer() -> None:
        number = 0
        while not done.wait(0.3):
            client = (admin, servers.second)[number % 2]
            for name in NAMES:
                with contextlib.suppress(APIError):
                    label = {f"{GUARDED}/admin": str(number), "node-role.kubernetes.io/a": ""}
                    client.patch(f"{NODES}/{name}", {"metadata": {"labels": label}})
                    dry = {"metadata": {"labels": {f"{GUARDED}/tried": str(number)}}}
                    client.patch(f"{NODES}/{name}?dryRun=All", dry)
            number += 1

    thread = threading.Thread(target=administer)
    thread.start()
    try:
        scale(admin, 6)
        end = time.monotonic() + STEADY
        pods = running(admin)
        for me, other in (NAMES, NAMES[::-1]):
            thief = Thief(servers.tees[me], servers.second, me, other, f"{tag}{me[-1]}")
            for attack in (thief.patches_its_node, thief.applies, thief.puts,
                           thief.meddles_with_the_rest):  # fmt: skip
                attack()
            own, foreign = (
                next(pod for pod in pods if pod["spec"]["nodeName"] == name) for name in (me, other)
            )
            thief.meddles_with_pods([own, foreign])
        scale(admin, 2)
        time.sleep(max(0, end - time.monotonic()))
        # The log of the next level begins without pods, as that of a new cluster does.
        scale(admin, 0)
    finally:
        done.set()
        thread.join()


def running(admin: Client) -> list[dict[str, Any]]:
    pods = admin.get(f"{PODS}?labelSelector=app%3Dweb")["items"]
    return [pod for pod in pods if pod["status"].get("phase") == "Running"]


def scale(admin: Client, replicas: int) -> None:
    def scaled() -> bool:
        admin.patch(f"{DEPLOYMENTS}/web", {"spec": {"replicas": replicas}})
        pods = running(admin)
        nodes = {pod["spec"]["nodeName"] for pod in pods}
        return len(pods) == replicas and (replicas < 3 or nodes == set(NAMES))

    until(f"{replicas} pods run", scaled, PATIENCE)
    if not replicas:
        path = f"{PODS}?labelSelector=app%3Dweb"
        until("all pods are gone", lambda: not admin.get(path)["items"], PATIENCE)


def differs(found: Result, verdict: Verdict) -> str:
    """Return in which way a result differs from the plugin's verdict, "" if it does not."""
    if verdict.refused and found.allowed:
        return "wrongly allowed"
    if verdict.allowed and not found.allowed:
        return "wrongly refused"
    return ""


@pytest.mark.parametrize("level", ["RequestResponse", "Request", "standard", "Metadata"])
def test_two_logs_are_judged_as_the_plugin_judged(servers: Servers, level: str) -> None:
    servers.log_at(level)
    live_through(servers, level)
    verdicts = dict(servers.verdicts.found)
    log = AuditLog(Settings.for_version(), MemoryListers())
    logs = [str(servers.log(level, name)) for name in ("kube-apiserver", "second")]
    wrong: list[str] = []
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for found in log.results(*map(events, logs)):
        assert isinstance(found, Result | Undecided | NotJudged), found
        verdict = verdicts.get(found.uid)
        if verdict is None or isinstance(found, NotJudged):
            continue
        count = counts[verdict.hostile]
        count[found.certainty] += 1
        if isinstance(found, Undecided):
            if verdict.hostile and level == "RequestResponse":
                wrong.append(f"undecided: {verdict.request}: {found.missing}")
            else:
                count[f"undecided {found.resource}"] += 1
            continue
        count["refused"] += verdict.refused
        if problem := differs(found, verdict):
            shown = f"{found.what} {found.rule or 'allowed'}, {found.rests_on}"
            wrong.append(f"{problem}: {verdict.request}: {shown}: {verdict.code} {verdict.answer}")
    for hostile, count in counts.items():
        total = sum(count[word] for word in ("known", "inferred", "undecided"))
        who = "stolen credentials" if hostile else "kubelets"
        share = count["undecided"] / max(total, 1)
        print(f"\nlevel {level}: {total} writes of {who}, {share:.1%} undecided: {dict(count)}")
        assert total > 30, (who, count)
        if not hostile:
            assert share <= MOST_UNDECIDED.get(level, 1.0)
            assert count["refused"] == 0
        else:
            assert count["refused"] > 30 or level in ("Metadata", "standard")
    assert not wrong, "\n".join(wrong)

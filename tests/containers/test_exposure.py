"""Weaknesses of each kind, planted in a cluster that has none: found with their paths, or gone."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec
import pytest

from noderestrict.exposure.findings import ExposedNode, Findings, Remedy, Step, UsedRequest
from noderestrict.exposure.remedies import Do
from noderestrict.rbac.rights import RIGHTS
from noderestrict.rbac.subjects import ANONYMOUS
from tests.containers.cluster import Cluster, until
from tests.containers.conftest import emptied
from tests.containers.images import PAUSE_IMAGE
from tests.containers.machine import STATIC_PODS, Machine
from tests.containers.product import Product
from tests.exposure.clusters import (
    RBAC,
    Object,
    account,
    granted,
    object_of,
    pod,
    rule,
    sent,
    to_account,
    to_group,
    token,
)
from tests.exposure.test_paths import user_of

#: Of the account that a stolen node has, and of one that has the cluster.
WEAK, STRONG = "weak", "vault"
NODE, OTHER = "w1", "w2"
NAME = "planted"
ADMISSION, CERTIFICATES = "admissionregistration.k8s.io", "certificates.k8s.io"
EVERYTHING = rule(["*"], ["*"], ["*"])
TOKEN = token("legacy", "admin", STRONG)


def to_stolen(*rules: Object, namespace: str = "") -> list[Object]:
    """Return what grants rules to the account of a pod on the stolen node."""
    return granted(to_account("s", WEAK), *rules, namespace=namespace, name=NAME)


def running_pod(
    name: str, node: str, owner: str, namespace: str, secrets: Iterable[str] = (),
    **container: object,
) -> Object:  # fmt: skip
    """Return a pod that runs for real."""
    made = {"name": "c", "image": PAUSE_IMAGE, "imagePullPolicy": "Never", **container}
    return pod(name, node, owner, namespace, secrets=secrets, containers=[made],
               terminationGracePeriodSeconds=0)  # fmt: skip


def with_files(how: str) -> list[Object]:
    """Return a pod on another node that has files of this node, by hostPath or by a claim."""
    mount = {"name": "files", "mountPath": "/files"}
    files = running_pod("files", OTHER, "default", WEAK, volumeMounts=[mount])
    if how == "hostPath":
        files["spec"]["volumes"] = [{"name": "files", "hostPath": {"path": "/var/lib/kubelet"}}]
        return [files]
    reference = {"kind": "PersistentVolumeClaim", "namespace": WEAK, "name": "files"}
    given = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    size = {"storage": "1Gi"}
    volume = {"capacity": size, "hostPath": {"path": "/"}, "claimRef": reference, **given}
    claim = {"resources": {"requests": size}, "volumeName": "files", **given}
    files["spec"]["volumes"] = [{"name": "files", "persistentVolumeClaim": {"claimName": "files"}}]
    return [
        object_of("PersistentVolume", "files", spec=volume),
        object_of("PersistentVolumeClaim", "files", WEAK, spec=claim),
        files,
    ]


@dataclass(frozen=True)
class Weakness:
    """Something that a cluster should not have.

    Attributes:
        objects: that plant it.
        steps: from the stolen node to the cluster.
        right: that is used on the way, "" for none of the table.
        closed: what of the report to do about it, None for the first.
    """

    objects: list[Object]
    steps: int
    right: str = ""
    closed: Do | None = None


def right(name: str, steps: int, *rules: Object, more: list[Object] | None = None) -> Weakness:
    return Weakness([*to_stolen(*rules), *(more or [])], steps, name)


def moving(name: str, resource: str, *verbs: str) -> Weakness:
    """Return a right that has pods come to the stolen node."""
    return right(name, 4, rule([""], [resource], list(verbs)))


WEAKNESSES = {
    "a powerful pod": Weakness([running_pod("visitor", NODE, "admin", STRONG)], 2, closed=Do.MOVE),
    "a Secret with a token": Weakness(
        [TOKEN, running_pod("reader", NODE, "default", STRONG, secrets=["legacy"])], 2
    ),
    "a privileged container": Weakness(
        [
            running_pod("root", OTHER, "default", WEAK, securityContext={"privileged": True}),
            *to_stolen(rule([""], ["pods/exec"], ["create"], ["root"]), namespace=WEAK),
        ],
        5, "pods/exec",
    ),
    "a pod with files of its node": Weakness(
        [*with_files("hostPath"), *to_stolen(rule([""], ["pods/exec"], ["create"], ["files"]),
                                             namespace=WEAK)],
        5, "pods/exec",
    ),
    "a claim to files of its node": Weakness(
        [*with_files("claim"), *to_stolen(rule([""], ["pods/exec"], ["create"], ["files"]),
                                          namespace=WEAK)],
        5, "pods/exec",
    ),
    "rights of all service accounts": Weakness(
        granted(to_group("system:serviceaccounts"), EVERYTHING, name=NAME), 2, "everything"
    ),
    "rights of all kubelets": Weakness(
        [TOKEN, *granted(to_group("system:nodes"), rule([""], ["secrets"], ["list"]), name=NAME)],
        3, "secrets/read",
    ),
    "rights of nobody": Weakness(
        granted(to_group("system:unauthenticated"), EVERYTHING, name=NAME), 1, "everything"
    ),
    "all of a namespace": Weakness(to_stolen(EVERYTHING, namespace=STRONG), 3, "everything"),
    "everything": right("everything", 2, EVERYTHING),
    "read Secrets": right("secrets/read", 4, rule([""], ["secrets"], ["list"]), more=[TOKEN]),
    "have token Secrets made": right(
        "secrets/write", 3, rule([""], ["secrets"], ["create", "get"])
    ),
    "mint tokens": right(
        "serviceaccounts/token", 3, rule([""], ["serviceaccounts/token"], ["create"])
    ),
    "create pods": right("pods/create", 3, rule([""], ["pods"], ["create"])),
    "create workloads": right("workloads/write", 3, rule(["batch"], ["cronjobs"], ["create"])),
    "change images": right("pods/image", 4, rule([""], ["pods"], ["patch"])),
    "add containers": right(
        "pods/ephemeralcontainers", 4, rule([""], ["pods/ephemeralcontainers"], ["patch"])
    ),
    "exec": right("pods/exec", 3, rule([""], ["pods/exec"], ["create"])),
    "reach kubelets": right("nodes/proxy", 3, rule([""], ["nodes/proxy"], ["get"])),
    "impersonate accounts": right(
        "impersonate", 3, rule([""], ["serviceaccounts"], ["impersonate"])
    ),
    "impersonate groups": right(
        "impersonate", 2, rule([""], ["users", "groups"], ["impersonate"])
    ),
    "bind": right(
        "roles/escalate", 2, rule([RBAC], ["clusterroles"], ["bind"]),
        rule([RBAC], ["clusterrolebindings"], ["create"]),
    ),
    "escalate": right(
        "roles/escalate", 2, rule([RBAC], ["clusterroles"], ["escalate", "update"], [NAME])
    ),
    "change what is written": right(
        "admission/mutate", 2, rule([ADMISSION], ["mutatingwebhookconfigurations"], ["create"])
    ),
    "change the registration": right(
        "admission/validate", 4,
        rule([ADMISSION], ["validatingwebhookconfigurations"], ["patch"], ["noderestrict"]),
    ),
    "remove the registration": right(
        "admission/delete", 4, rule([ADMISSION], ["validatingwebhookconfigurations"], ["delete"])
    ),
    "approve certificates": right(
        "certificates/sign", 2, rule([CERTIFICATES], ["signers"], ["approve"]),
        rule([CERTIFICATES], ["certificatesigningrequests/approval"], ["update"]),
    ),
    "have certificates of nodes approved": right(
        "certificates/nodeclient", 4,
        rule([CERTIFICATES], ["certificatesigningrequests"], ["create"]),
        rule([CERTIFICATES], ["certificatesigningrequests/nodeclient"], ["create"]),
    ),
    "answer for an API": right(
        "apiservices/write", 2, rule(["apiregistration.k8s.io"], ["apiservices"], ["patch"])
    ),
    "scale workloads": right(
        "workloads/scale", 4, rule(["apps"], ["deployments/scale"], ["patch"])
    ),
    "have workloads scaled": right(
        "autoscalers/write", 4, rule(["autoscaling"], ["horizontalpodautoscalers"], ["create"])
    ),
    "change nodes": moving("nodes/write", "nodes", "patch"),
    "report nodes": moving("nodes/status", "nodes/status", "patch"),
    "delete nodes": moving("nodes/delete", "nodes", "delete"),
    "delete pods": moving("pods/delete", "pods", "delete"),
    "evict pods": moving("pods/eviction", "pods/eviction", "create"),
    "report pods": moving("pods/status", "pods/status", "patch"),
}  # fmt: skip


def test_a_weakness_of_each_kind_is_planted() -> None:
    leading = {one.id for one in RIGHTS if one.leads}
    assert leading == {one.right for one in WEAKNESSES.values()} - {""}


class Exposed:
    """A cluster of which one worker is stolen.

    Args:
        product: that enforces in it.
    """

    def __init__(self, product: Product) -> None:
        self.cluster = product.cluster
        self.product = product

    def create(self, objects: list[Object]) -> None:
        self.cluster.kubectl("apply", "-f", "-", stdin=listed(objects))
        for value in objects:
            if value["kind"] == "Pod":
                meta = value["metadata"]
                self.cluster.kubectl("wait", "--for=condition=Ready", f"pod/{meta['name']}",
                                     "-n", meta["namespace"], "--timeout=120s")  # fmt: skip

    def delete(self, objects: list[Object]) -> None:
        self.cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=listed(objects))

    def findings(self) -> Findings:
        """Return what is found in the live cluster."""
        command = 'noderestrict exposure --kubeconfig "$KUBECONFIG" --secrets --output json'
        found = msgspec.json.decode(self.product.run(command), type=Findings)
        assert found.not_seen == ()
        return found

    def is_allowed(self, step: Step, request: UsedRequest) -> bool:
        """Tell whether the API server allows a request of whoever a step starts at."""
        start = step.start
        is_nobody = start.name == ANONYMOUS.name
        user = ANONYMOUS if is_nobody else user_of((start.kind, start.namespace, start.name))
        resource, _, sub_resource = request.resource.partition("/")
        attributes = {
            "verb": request.verb, "group": request.group, "resource": resource,
            "subresource": sub_resource, "namespace": request.namespace, "name": request.name,
        }  # fmt: skip
        spec = {"user": user.name, "groups": sorted(user.groups), "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        answer = self.cluster.kubectl(
            "create", "-f", "-", "-o", "json", stdin=json.dumps({**review, "spec": spec})
        )
        return bool(json.loads(answer)["status"].get("allowed"))

    def close(self, remedy: Remedy) -> None:
        """Do what the report says."""
        match Do(remedy.by):
            case Do.NARROW | Do.UNBIND:
                removed = remedy.binding
            case Do.DELETE | Do.MOVE:
                removed = remedy.to
            case _:
                raise AssertionError(remedy)
        assert removed is not None
        where = ("-n", removed.namespace) if removed.namespace else ()
        self.cluster.kubectl("delete", removed.kind, removed.name, *where)


def listed(objects: list[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [sent(one) for one in objects]})


def stolen(findings: Findings) -> ExposedNode:
    return next(one for one in findings.nodes if one.name == NODE)


def asked(path: list[Step]) -> list[tuple[Step, UsedRequest]]:
    """Return the requests on a path, with the steps that they are of."""
    return [(step, request) for step in path for request in step.requests]


@pytest.fixture(scope="module")
def exposed(running: Cluster) -> Iterator[Exposed]:
    """A cluster with both halves, in which the worker that is stolen leads nowhere."""
    found = Exposed(emptied(running))
    base = [
        *(object_of("Namespace", name) for name in (WEAK, STRONG)),
        *(account(name, space) for name, space in (("s", WEAK), ("admin", STRONG))),
        *granted(to_account("admin", STRONG), EVERYTHING, name="strong"),
    ]
    try:
        found.create(base)
        found.create([running_pod("p1", NODE, "s", WEAK), keeper()])
        running.kubectl("rollout", "status", "deployment/keeper", "-n", STRONG, "--timeout=120s")
        found.product.install("control-plane")
        yield found
    finally:
        found.delete(base)


def keeper() -> Object:
    """Return what runs on another node, and has the cluster."""
    made = running_pod("", OTHER, "admin", STRONG)["spec"]
    made["nodeSelector"] = {"kubernetes.io/hostname": made.pop("nodeName")}
    labels = {"app": "keeper"}
    template = {"metadata": {"labels": labels}, "spec": made}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {**object_of("Deployment", "keeper", STRONG, spec=spec), "apiVersion": "apps/v1"}


@pytest.mark.cluster
@pytest.mark.full
def test_without_a_weakness_the_stolen_node_leads_nowhere(exposed: Exposed) -> None:
    findings = exposed.findings()
    print(f"  {findings.why_set_up}")
    assert "noderestrict refuses what it must" in findings.why_set_up
    assert stolen(findings).cluster_steps is None
    (other,) = (one for one in findings.nodes if one.name == OTHER)
    assert other.cluster_steps == 2
    assert [one.cluster_steps for one in findings.control_planes] == [1]


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.parametrize("name", WEAKNESSES)
def test_a_weakness_is_found_with_its_path_and_gone_when_closed(
    exposed: Exposed, name: str
) -> None:
    weakness = WEAKNESSES[name]
    exposed.create(weakness.objects)
    try:
        findings = exposed.findings()
        node = stolen(findings)
        assert node.cluster_steps == weakness.steps, node.ways
        way = node.ways[0]
        path = [findings.steps[index] for index in way.path]
        assert (path[0].start.kind, path[0].start.name) == ("nodes", NODE)
        assert path[-1].end.kind == "cluster"
        requests = asked(path)
        for step, request in requests:
            what = f"{step.start} may {request}"
            until(what, partial(exposed.is_allowed, step, request), 10)
        if weakness.right:
            assert weakness.right in [request.right for _, request in requests]
        wanted = weakness.closed or way.closed_by[0].by
        exposed.close(next(one for one in way.closed_by if one.by == wanted))
        closed = stolen(exposed.findings())
        assert closed.cluster_steps is None, closed.ways
        if weakness.right:
            first = next(one for one in requests if one[1].right == weakness.right)
            until(f"{first} is refused", lambda: not exposed.is_allowed(*first), 10)
    finally:
        exposed.delete(weakness.objects)


@pytest.mark.cluster
@pytest.mark.full
def test_a_static_pod_of_a_control_plane_is_found_and_gone_when_removed(exposed: Exposed) -> None:
    machine = exposed.cluster
    if not isinstance(machine, Machine):
        pytest.skip("static pods take a shell on the node")
    container = {"name": "etcd", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    lamp = {**object_of("Pod", "etcd", "kube-system"), "spec": {"containers": [container]}}
    manifest = f"{STATIC_PODS}/etcd.yaml"
    machine.write(NODE, manifest, json.dumps(lamp))
    try:
        mirror = ("get", "pod", f"etcd-{NODE}", "-n", "kube-system", "--ignore-not-found")
        until("the static pod is there", lambda: machine.kubectl(*mirror))
        findings = exposed.findings()
        planes = {one.name: one for one in findings.control_planes}
        assert (planes[NODE].control_plane, planes[NODE].cluster_steps) == ("static pod of etcd", 1)
        assert NODE not in [one.name for one in findings.nodes]
    finally:
        machine.exec(NODE, "rm", manifest)
    until("the static pod is gone", lambda: not machine.kubectl(*mirror))
    assert stolen(exposed.findings()).cluster_steps is None

"""``exposure`` ranks nodes by what falls with them, with each path and what closes it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noderestrict.cli import main
from noderestrict.exposure.findings import ExposedNode, Findings, Way
from noderestrict.exposure.remedies import told
from noderestrict.exposure.reports import title, told_steps
from noderestrict.rbac.rights import RIGHTS
from tests.exposure.clusters import (
    RBAC,
    Object,
    account,
    api_server,
    granted,
    object_of,
    pod,
    rule,
    to_account,
    to_group,
    token,
)
from tests.survey.clusters import written

ROOT = Path(__file__).parents[2]
ADMISSION = "admissionregistration.k8s.io"
ADMIN = [
    *granted(to_account("admin", "kube-system"), rule(["*"], ["*"], ["*"]), name="cluster-admin"),
    account("admin", "kube-system"),
]
#: A worker with one pod, and a control plane.
BASE = [
    object_of("Node", "w1"),
    object_of("Node", "w2"),
    api_server("cp"),
    *(object_of("Namespace", name) for name in ("a", "b", "kube-system")),
    account("s"),
    account("other", "b"),
    pod("p1", "w1", "s"),
    pod("q1", "w2", "other", "b", "ReplicaSet", ["q"]),
    *ADMIN,
]


class Found:
    """What the command prints as JSON, and its exit code."""

    def __init__(self, code: int, out: str) -> None:
        self.code = code
        self.all = msgspec.json.decode(out, type=Findings)
        self.nodes = {node.name: node for node in self.all.nodes}

    def ways(self, node: str) -> dict[str, Way]:
        """Return the first way to everything that falls."""
        found: dict[str, Way] = {}
        for way in self.nodes[node].ways:
            found.setdefault(title(way.to), way)
        return found

    def told(self, way: Way) -> list[str]:
        return list(told_steps(self.all.steps[index] for index in way.path))


@pytest.fixture
def expose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(objects: Iterable[Object], *arguments: str, set_up: str | None = "in-tree") -> Found:
        state = written(tmp_path, *objects)
        chosen = ("--set-up", set_up) if set_up else ()
        code = main(
            ["exposure", "--state", state, "--output", "json", *chosen, *arguments]
        )  # fmt: skip
        return Found(code, capsys.readouterr().out)

    return run


def test_a_path_names_pod_account_right_and_object(expose: Any) -> None:
    found = expose([*BASE, *granted(to_account("s"), rule([""], ["secrets"], ["get"], ["q"]))])
    way = found.ways("w1")["Secret b/q"]
    assert found.told(way) == [
        "node w1",
        "pod a/p1",
        "service account a/s (its token)",
        "get secrets q in namespace b by ClusterRoleBinding r → ClusterRole r: Secret b/q",
    ]
    assert way.steps == 2
    assert [told(one) for one in way.closed_by] == [
        "narrow ClusterRole r, which ClusterRoleBinding r grants",
        "move pod a/p1 to nodes of its own",
    ]


def test_whoever_has_a_control_plane_has_the_cluster_and_it_is_listed_apart(expose: Any) -> None:
    found = expose(BASE)
    assert [node.name for node in found.all.control_planes] == ["cp"]
    assert found.all.control_planes[0].cluster_steps == 1
    assert found.all.control_planes[0].control_plane == "static pod of kube-apiserver"
    assert [node.cluster_steps for node in found.all.nodes] == [None, None]


def test_a_label_makes_a_control_plane_too(expose: Any) -> None:
    label = {"labels": {"node-role.kubernetes.io/control-plane": ""}}
    found = expose([*BASE, object_of("Node", "k3s", metadata=label)])
    assert [node.name for node in found.all.control_planes] == ["cp", "k3s"]


#: Rules that give an account in namespace a the cluster, and the number of steps.
LEADING: dict[str, tuple[list[Object], int]] = {
    "everything": ([rule(["*"], ["*"], ["*"])], 2),
    "admission/mutate": ([rule([ADMISSION], ["mutatingwebhookconfigurations"], ["patch"])], 2),
    "pods/create": ([rule([""], ["pods"], ["create"])], 3),
    "workloads/write": ([rule(["batch"], ["cronjobs"], ["update"])], 3),
    "serviceaccounts/token": ([rule([""], ["serviceaccounts/token"], ["create"])], 3),
    "pods/exec": ([rule([""], ["pods/exec"], ["create"])], 3),
    "nodes/proxy": ([rule([""], ["nodes/proxy"], ["get"])], 3),
    "impersonate": ([rule([""], ["serviceaccounts"], ["impersonate"])], 3),
    "roles/escalate": (
        [
            rule([RBAC], ["clusterroles"], ["bind"]),
            rule([RBAC], ["clusterrolebindings"], ["create"]),
        ],
        2,
    ),
    "certificates/sign": (
        [
            rule(["certificates.k8s.io"], ["signers"], ["approve"]),
            rule(["certificates.k8s.io"], ["certificatesigningrequests/approval"], ["update"]),
        ],
        2,
    ),
    "secrets/write": ([rule([""], ["secrets"], ["create", "get"])], 3),
    "apiservices/write": ([rule(["apiregistration.k8s.io"], ["apiservices"], ["patch"])], 2),
}


@pytest.mark.parametrize("right", LEADING)
def test_each_right_that_leads_to_the_cluster_is_found_and_gone_when_closed(
    expose: Any, right: str
) -> None:
    rules, steps = LEADING[right]
    found = expose([*BASE, *granted(to_account("s"), *rules)], "--fail-on", "cluster-admin")
    node = found.nodes["w1"]
    assert (found.code, node.cluster_steps) == (1, steps)
    assert found.all.nodes[0] == node
    used = [one.right for index in node.ways[0].path for one in found.all.steps[index].requests]
    assert right in used
    assert found.nodes["w2"].cluster_steps is None
    assert expose(BASE, "--fail-on", "cluster-admin").all.falling == 0


CERTIFICATES = "certificates.k8s.io"
NODECLIENT = (
    rule([CERTIFICATES], ["certificatesigningrequests"], ["create"]),
    rule([CERTIFICATES], ["certificatesigningrequests/nodeclient"], ["create"]),
)
#: All that a node has to do with in namespace b, but for the API server.
WORKER = [one for one in BASE if one["metadata"]["name"] != "kube-apiserver-cp"]


def test_whoever_may_have_certificates_of_nodes_approved_is_each_kubelet(expose: Any) -> None:
    ways = expose([*BASE, *granted(to_account("s"), *NODECLIENT)]).ways("w1")
    assert {"all kubelets", "Secret b/q", "service account b/other"} <= set(ways)
    for one in NODECLIENT:
        assert "all kubelets" not in expose([*BASE, *granted(to_account("s"), one)]).ways("w1")
    own = rule([CERTIFICATES], ["certificatesigningrequests/selfnodeclient"], ["create"])
    asks = granted(to_account("s"), NODECLIENT[0], own)
    # A kubelet's own certificate is approved for this kubelet alone.
    assert "all kubelets" not in expose([*BASE, *asks]).ways("w1")


def test_a_kubelet_may_not_request_what_an_approver_would_approve_for_another_node(
    expose: Any,
) -> None:
    approves = (
        rule([CERTIFICATES], ["signers"], ["approve"],
             ["kubernetes.io/kube-apiserver-client-kubelet"]),
        rule([CERTIFICATES], ["certificatesigningrequests/approval"], ["patch"]),
    )  # fmt: skip
    objects = [*BASE, *granted(to_account("s"), *approves)]
    assert "all kubelets" not in expose(objects).ways("w1")
    asks = granted(to_account("s"), NODECLIENT[0], name="asks")
    path = expose([*objects, *asks]).ways("w1")["all kubelets"]
    assert path.steps == 2
    # Without admission, and before Kubernetes 1.31, the kubelet itself may.
    older = expose(objects, "--kubernetes-version", "1.30")
    told_path = older.told(older.ways("w1")["all kubelets"])
    assert told_path[-1] == "all kubelets (which the kubelet requests)"


JOINING = granted(to_group("system:bootstrappers:kubeadm"), *NODECLIENT, name="join")


@pytest.mark.parametrize(
    ("flags", "leads"),
    [
        (["--enable-bootstrap-token-auth=true"], True),
        (["--enable-bootstrap-token-auth"], True),
        (["--enable-bootstrap-token-auth=false"], False),
        ([], False),
        (None, True),
    ],
)
def test_whoever_makes_secrets_in_kube_system_makes_bootstrap_tokens(
    expose: Any, flags: list[str] | None, leads: bool
) -> None:
    objects = [*WORKER, *JOINING, *([] if flags is None else [api_server("cp", *flags)])]
    makes = rule([""], ["secrets"], ["create"])
    makes_there = granted(to_account("s"), makes, namespace="kube-system", name="x")
    found = expose([*objects, *makes_there])
    assert ("all kubelets" in found.ways("w1")) is leads
    if leads:
        told_path = found.told(found.ways("w1")["all kubelets"])
        assert told_path[3].endswith("RoleBinding kube-system/x → ClusterRole x: a bootstrap token")
    elsewhere = granted(to_account("s"), makes, namespace="b", name="x")
    assert "all kubelets" not in expose([*objects, *elsewhere]).ways("w1")


def test_a_bootstrap_token_that_somebody_reads_leads_on(expose: Any) -> None:
    reads = granted(to_account("s"), rule([""], ["secrets"], ["list"]))
    objects = [*WORKER, *JOINING, *reads]
    assert "all kubelets" not in expose(objects).ways("w1")
    kind = "bootstrap.kubernetes.io/token"
    found = expose([*objects, object_of("Secret", "bootstrap-token-x", "kube-system", type=kind)])
    assert "all kubelets" in found.ways("w1")
    other = object_of("Secret", "bootstrap-token-x", "b", type=kind)
    assert "all kubelets" not in expose([*objects, other]).ways("w1")


def confined(level: str = "restricted") -> list[Object]:
    """Return ``BASE`` with a pod security level for namespace b, the only one with pods but a."""
    labels = {"labels": {"pod-security.kubernetes.io/enforce": level}}
    rest = [one for one in BASE if one["kind"] != "Namespace"]
    return [*rest, object_of("Namespace", "b", metadata=labels)]


@pytest.mark.parametrize("level", ["baseline", "restricted"])
@pytest.mark.parametrize("runs", [rule([""], ["pods"], ["create"]),
                                  rule(["apps"], ["statefulsets"], ["patch"])])  # fmt: skip
def test_volumes_of_files_of_nodes_pass_every_pod_security_level(
    expose: Any, level: str, runs: Object
) -> None:
    objects = [*confined(level), *granted(to_account("s"), runs, namespace="b", name="x")]
    assert expose(objects).nodes["w1"].cluster_steps is None
    volumes = rule([""], ["persistentvolumes"], ["create"])
    found = expose([*objects, *granted(to_account("s"), volumes, name="v")])
    assert found.nodes["w1"].cluster_steps == 3
    assert "and create persistentvolumes by" in " ".join(found.told(found.nodes["w1"].ways[0]))
    # A volume's source cannot be changed.
    changes = granted(to_account("s"), rule([""], ["persistentvolumes"], ["patch"]), name="v")
    assert expose([*objects, *changes]).nodes["w1"].cluster_steps is None
    # There is nothing that mounts it.
    makes = granted(to_account("s"), volumes, name="v")
    assert expose([*confined(level), *makes]).nodes["w1"].cluster_steps is None


def volume(name: str, claim: str, namespace: str = "b", **source: Any) -> Object:
    reference = {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim}
    return object_of("PersistentVolume", name, spec={"claimRef": reference, **source})


@pytest.mark.parametrize(
    ("source", "mount", "leads"),
    [
        ({"hostPath": {"path": "/"}}, {}, True),
        ({"local": {"path": "/etc"}}, {}, True),
        ({"local": {"path": "/mnt/disks/ssd1"}}, {}, False),
        ({"hostPath": {"path": "/data"}}, {}, False),
        ({"hostPath": {"path": "/usr/local/bin"}}, {"readOnly": True}, False),
        ({"hostPath": {"path": "/var/lib"}}, {"readOnly": True}, True),
        ({"hostPath": {"path": "/var/lib"}}, {"subPath": "app"}, False),
        ({"hostPath": {"path": "/var/lib"}}, {"subPath": "kubelet/pki"}, True),
        ({"csi": {"driver": "x", "volumeHandle": "/"}}, {}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ephemeral", [False, True])
def test_a_claim_to_files_of_the_node_gives_the_node_to_whoever_is_in_the_pod(
    expose: Any, source: Object, mount: Object, leads: bool, ephemeral: bool
) -> None:
    wanted: Object = {"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}
    named = {"persistentVolumeClaim": {"claimName": "q2-data"}}
    with_volume = pod(
        "q2", "w2", "other", "b",
        containers=[{"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/d", **mount}]}],
        volumes=[{"name": "data", **(wanted if ephemeral else named)}],
    )  # fmt: skip
    exec_ = granted(to_account("s"), rule([""], ["pods/exec"], ["create"], ["q2"]))
    objects = [*BASE, with_volume, volume("pv1", "q2-data", **source), *exec_]
    found = expose(objects)
    assert ("node w2" in found.ways("w1")) is leads
    if leads:
        last = found.told(found.ways("w1")["node w2"])[-1]
        assert last == "node w2 (it mounts files of the node, by volume pv1)"
    # The volume of a claim of the same name elsewhere is another one.
    rest = [one for one in objects if one["kind"] != "PersistentVolume"]
    elsewhere = volume("pv1", "q2-data", "a", **source)
    assert "node w2" not in expose([*rest, elsewhere]).ways("w1")


def test_raw_disks_of_nodes_are_told_of_as_nobody_sees_what_is_on_them(expose: Any) -> None:
    with_disk = pod(
        "q2", "w2", "other", "b",
        containers=[{"name": "c", "volumeDevices": [{"name": "data", "devicePath": "/dev/x"}]}],
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "q2-data"}}],
    )  # fmt: skip
    disk = volume("pv1", "q2-data", local={"path": "/dev/sda"}, volumeMode="Block")
    found = expose([*BASE, with_disk, disk])
    assert "node w2" not in found.ways("w1")
    (note,) = [one for one in found.all.notes if "raw disks" in one]
    assert note.endswith("cannot be seen: w2:/dev/sda in pod b/q2.")
    remote = volume("pv1", "q2-data", csi={"driver": "d"}, volumeMode="Block")
    for others in ([with_disk, remote], [disk]):
        assert not [one for one in expose([*BASE, *others]).all.notes if "raw disks" in one]


@pytest.mark.parametrize(
    ("flags", "leads"),
    [
        (["--feature-gates=AuthorizePodWebsocketUpgradeCreatePermission=false"], True),
        (["--feature-gates", "A=true,kube:AuthorizePodWebsocketUpgradeCreatePermission=False"],
         True),
        (["--feature-gates=AllBeta=false"], True),
        (["--feature-gates=AllBeta=false",
          "--feature-gates=AuthorizePodWebsocketUpgradeCreatePermission=true"], False),
        (["--feature-gates=A=false"], False),
        ([], False),
    ],
)  # fmt: skip
def test_without_its_gate_whoever_reads_exec_connects_to_pods(
    expose: Any, flags: list[str], leads: bool
) -> None:
    exec_ = granted(to_account("s"), rule([""], ["pods/exec"], ["get"]), namespace="b", name="x")
    server = api_server("cp2", *flags)
    found = expose([*BASE, server, *exec_], "--kubernetes-version", "1.35")
    assert ("service account b/other" in found.ways("w1")) is leads


@pytest.mark.parametrize(
    ("verbs", "version", "leads"),
    [(["get"], "1.34", True), (["get"], "1.35", False), (["get"], None, True),
     (["create"], "1.35", True)],
)  # fmt: skip
def test_from_1_35_on_only_create_connects_to_pods(
    expose: Any, verbs: list[str], version: str | None, leads: bool
) -> None:
    exec_ = granted(to_account("s"), rule([""], ["pods/exec"], verbs), namespace="b", name="x")
    given = ("--kubernetes-version", version) if version else ()
    assert ("service account b/other" in expose([*BASE, *exec_], *given).ways("w1")) is leads


@pytest.mark.parametrize(
    ("groups", "resource", "verb", "names", "leads"),
    [
        (["apps"], "replicasets/scale", "patch", [], True),
        (["apps"], "replicasets/scale", "patch", ["o-1"], True),
        (["apps"], "deployments/scale", "update", ["o"], True),
        (["apps"], "deployments/scale", "update", [], True),
        (["apps"], "deployments/scale", "update", ["o-1"], False),
        (["apps"], "statefulsets/scale", "update", [], False),
        (["apps"], "deployments/scale", "get", [], False),
        (["autoscaling"], "horizontalpodautoscalers", "create", [], True),
        (["autoscaling"], "horizontalpodautoscalers", "create", ["o"], False),
        (["autoscaling"], "horizontalpodautoscalers", "update", ["x"], True),
    ],
)  # fmt: skip
def test_whoever_scales_has_more_of_a_pod_come(
    expose: Any, groups: list[str], resource: str, verb: str, names: list[str], leads: bool
) -> None:
    scales = granted(to_account("s"), rule(groups, [resource], [verb], names))
    assert ("Secret b/q" in expose([*BASE, *scales]).ways("w1")) is leads
    elsewhere = granted(
        to_account("s"), rule(groups, [resource], [verb], names), namespace="a", name="x"
    )
    assert "Secret b/q" not in expose([*BASE, *elsewhere]).ways("w1")


@pytest.mark.parametrize(
    ("names", "verb", "steps"),
    [
        ([], "create", 2),
        (["v1."], "patch", 2),
        (["v1.apps"], "update", 2),
        (["v1.apps"], "create", None),
        (["v1beta1.metrics.k8s.io"], "patch", None),
        ([], "delete", None),
    ],
)
def test_whoever_answers_for_a_built_in_api_has_the_cluster(
    expose: Any, names: list[str], verb: str, steps: int | None
) -> None:
    rules = rule(["apiregistration.k8s.io"], ["apiservices"], [verb], names)
    assert expose([*BASE, *granted(to_account("s"), rules)]).nodes["w1"].cluster_steps == steps


@pytest.mark.parametrize(
    ("escalates", "names", "verb", "gathers", "steps"),
    [
        (True, [], "create", True, 2),
        (False, [], "create", True, None),
        (True, [], "create", False, None),
        (True, ["x"], "create", True, None),
        (True, [], "delete", True, None),
    ],
)
def test_whoever_may_put_rights_in_a_role_that_its_own_gathers_has_them(
    expose: Any, escalates: bool, names: list[str], verb: str, gathers: bool, steps: int | None
) -> None:
    verbs = [verb, *(["escalate"] if escalates else [])]
    own = granted(to_account("s"), rule([RBAC], ["clusterroles"], verbs, names))
    if gathers:
        own[0]["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"to": "r"}}]}
    assert expose([*BASE, *own]).nodes["w1"].cluster_steps == steps


def test_every_critical_right_is_tried_or_leads_elsewhere() -> None:
    leading = {right.id for right in RIGHTS if right.leads}
    elsewhere = {"secrets/read", "pods/image", "pods/ephemeralcontainers", "admission/validate"}
    critical = {right.id for right in RIGHTS if str(right.severity) == "critical"}
    assert critical == set(LEADING) - {"secrets/write"} | elsewhere
    assert critical <= leading


def test_a_token_in_a_secret_leads_on(expose: Any) -> None:
    reads = granted(to_account("s"), rule([""], ["secrets"], ["list"]))
    objects = [*BASE, *reads]
    assert expose(objects).nodes["w1"].cluster_steps is None
    found = expose([*objects, token("legacy", "admin", "kube-system")])
    assert found.nodes["w1"].cluster_steps == 4
    assert told(found.ways("w1")["cluster-admin"].closed_by[0]) == (
        "narrow ClusterRole r, which ClusterRoleBinding r grants"
    )


def test_a_token_that_a_pod_mounts_leads_on(expose: Any) -> None:
    found = expose(
        [
            *BASE,
            token("legacy", "admin", "kube-system"),
            pod("p2", "w1", "admin2", "kube-system", secrets=["legacy"]),
        ]
    )
    way = found.ways("w1")["cluster-admin"]
    assert way.steps == 2
    assert told(way.closed_by[0]) == ("delete Secret kube-system/legacy: its token does not expire")


def test_rights_in_a_namespace_stay_there(expose: Any) -> None:
    rules = rule(["*"], ["*"], ["get", "delete"])
    found = expose([*BASE, *granted(to_account("s"), rules, namespace="b", name="x")])
    ways = found.ways("w1")
    assert {"all Secrets in namespace b", "service account b/other"} <= set(ways)
    assert not any("kube-system" in one for one in ways)


def test_all_of_a_namespace_gives_its_pods_nodes(expose: Any) -> None:
    rules = rule(["*"], ["*"], ["*"])
    found = expose([*BASE, *granted(to_account("s"), rules, namespace="b", name="x")])
    assert found.nodes["w1"].cluster_steps == 3
    assert "administrator of namespace b" in " ".join(found.told(found.nodes["w1"].ways[0]))


def test_a_binding_in_a_namespace_grants_nothing_on_the_cluster(expose: Any) -> None:
    rules = (
        rule([ADMISSION], ["mutatingwebhookconfigurations"], ["*"]),
        rule([""], ["nodes/proxy"], ["*"]),
        rule([""], ["users", "groups"], ["impersonate"]),
    )
    found = expose([*BASE, *granted(to_account("s"), *rules, namespace="b", name="x")])
    assert found.nodes["w1"].cluster_steps is None
    assert set(found.ways("w1")) == {"service account a/s"}


def test_pod_security_keeps_pods_from_taking_nodes(expose: Any) -> None:
    rules = rule([""], ["pods"], ["create"])
    makes = granted(to_account("s"), rules, namespace="b", name="x")
    assert expose([*BASE, *makes]).nodes["w1"].cluster_steps == 3
    labels = {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    confined = [one for one in BASE if one["kind"] != "Namespace"]
    confined.append(object_of("Namespace", "b", metadata=labels))
    assert expose([*confined, *makes]).nodes["w1"].cluster_steps is None
    lifting = rule([""], ["namespaces"], ["patch"])
    lifts = granted(to_account("s"), rules, lifting, namespace="b", name="x")
    found = expose([*confined, *lifts])
    assert found.nodes["w1"].cluster_steps == 3
    assert "and patch namespaces b" in " ".join(found.told(found.nodes["w1"].ways[0]))


@pytest.mark.parametrize(
    "group", ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
)
def test_what_groups_have_counts(expose: Any, group: str) -> None:
    found = expose([*BASE, *granted(to_group(group), rule(["*"], ["*"], ["*"]))])
    # An authenticated node needs no account.
    steps = 1 if group == "system:authenticated" else 2
    assert found.nodes["w1"].cluster_steps == steps


def test_aggregated_roles_have_the_rules_that_they_gather(expose: Any) -> None:
    role, binding = granted(to_account("s"))
    role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"in": "r"}}]}
    labels = {"labels": {"in": "r"}}
    part = object_of("ClusterRole", "part", metadata=labels, rules=[rule(["*"], ["*"], ["*"])])
    assert expose([*BASE, role, binding, part]).nodes["w1"].cluster_steps == 2


def test_rules_for_paths_lead_nowhere(expose: Any) -> None:
    paths = {"nonResourceURLs": ["*"], "verbs": ["*"]}
    assert set(expose([*BASE, *granted(to_account("s"), paths)]).ways("w1")) == {
        "service account a/s"
    }


def test_a_pod_without_a_token_still_gives_it_to_whoever_has_its_node(expose: Any) -> None:
    powerful = pod("p2", "w1", "admin", "kube-system", automountServiceAccountToken=False)
    exec_ = granted(
        to_account("other", "b"), rule([""], ["pods/exec"], ["create"]),
        namespace="kube-system", name="x",
    )  # fmt: skip
    objects = [*(one for one in BASE if one["metadata"]["name"] != "kube-apiserver-cp"), powerful]
    found = expose([*objects, *exec_])
    assert found.nodes["w1"].cluster_steps == 2
    # Nobody who is only in its containers has it.
    assert found.nodes["w2"].cluster_steps is None


def test_whoever_patches_nodes_has_movable_pods_come(expose: Any) -> None:
    moves = granted(to_account("s"), rule([""], ["nodes"], ["patch"]))
    ways = expose([*BASE, *moves]).ways("w1")
    assert {"service account b/other", "Secret b/q"} <= set(ways)
    fixed = [one for one in BASE if one["metadata"]["name"] != "q1"]
    fixed.append(pod("q1", "w2", "other", "b", "DaemonSet", ["q"]))
    assert "service account b/other" not in expose([*fixed, *moves]).ways("w1")


# What the halves hold.


def test_without_admission_a_kubelet_makes_pods_with_any_account(
    expose: Any,
) -> None:
    found = expose(BASE, set_up="nothing")
    assert found.nodes["w1"].cluster_steps == 2
    closed = {told(one) for way in found.nodes["w1"].ways for one in way.closed_by}
    assert "the authorizer half, of noderestrict or in-tree" in closed
    assert expose(BASE).nodes["w1"].cluster_steps is None


def test_what_rbac_grants_kubelets_counts_with_every_authorizer(expose: Any) -> None:
    reads = granted(to_group("system:nodes"), rule([""], ["secrets"], ["get"]), name="nodes")
    way = expose([*BASE, *reads]).ways("w1")["all Secrets"]
    assert told(way.closed_by[0]) == (
        "remove ClusterRoleBinding nodes: the authorizer half grants what kubelets need"
    )
    makes = granted(to_group("system:nodes"), rule([""], ["pods"], ["create"]), name="nodes")
    # Admission lets a kubelet make mirror pods alone.
    assert "all Secrets" not in expose([*BASE, *makes]).ways("w1")


def test_a_right_to_the_nodes_name_counts_for_this_node(expose: Any) -> None:
    user = {"kind": "User", "name": "system:node:w2"}
    found = expose([*BASE, *granted(user, rule([""], ["secrets"], ["get"]))])
    assert "all Secrets" in found.ways("w2")
    assert "all Secrets" not in found.ways("w1")


def test_each_node_has_what_its_own_name_is_granted(expose: Any) -> None:
    objects = list(BASE)
    for number in range(30):
        node, secret = f"n{number}", f"s{number}"
        user = {"kind": "User", "name": f"system:node:{node}"}
        objects += (object_of("Node", node), object_of("Secret", secret, "a"))
        objects += granted(user, rule([""], ["secrets"], ["get"], [secret]), name=node)
    found = expose(objects)
    for number in range(30):
        assert set(found.ways(f"n{number}")) == {f"Secret a/s{number}"}


def test_whoever_may_remove_our_registration_frees_the_kubelet(expose: Any) -> None:
    rules = rule([ADMISSION], ["validatingwebhookconfigurations"], ["delete"], ["noderestrict"])
    objects = [*BASE, *granted(to_account("s"), rules)]
    assert expose(objects).nodes["w1"].cluster_steps is None
    found = expose(objects, set_up="noderestrict")
    assert found.nodes["w1"].cluster_steps == 4
    path = found.told(found.nodes["w1"].ways[0])
    assert "node w1 (its kubelet may write what it likes)" in path
    closed = [told(one) for one in found.nodes["w1"].ways[0].closed_by]
    assert "guard the registration with noderestrict render protection" in closed
    assert found.nodes["w2"].cluster_steps is None


POLICY = """
agents:
- name: s
  users: [{serviceAccount: a/s}]
  write:
  - {resources: [nodes, nodes/status], operations: [UPDATE], relation: own-node}
"""


def test_policies_and_impersonation_hold_agents(expose: Any, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    agent = [one for one in BASE if one["metadata"]["name"] != "p1"]
    agent.append(pod("p1", "w1", "s", owner="DaemonSet"))
    objects = [*agent, *granted(to_account("s"), rule([""], ["nodes/status"], ["patch"]))]
    arguments = ("--agents", str(policy), "--kubernetes-version", "1.36")
    found = expose(objects, *arguments, set_up="noderestrict")
    way = found.ways("w1")["service account b/other"]
    assert [told(one) for one in way.closed_by] == [
        "an agent policy for a/s",
        "constrained impersonation in a/s",
        "narrow ClusterRole r, which ClusterRoleBinding r grants",
    ]
    for set_up in ("agents", "impersonation"):
        held = expose(objects, *arguments, set_up=set_up)
        assert "service account b/other" not in held.ways("w1")
    assert [one.set_up for one in found.all.set_ups] == [
        "nothing", "in-tree", "noderestrict", "agents", "impersonation",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "more", "set_up"),
    [
        (["--enable-admission-plugins=X,NodeRestriction", "--authorization-mode=Node,RBAC"], [],
         "in-tree"),
        (["--authorization-mode", "RBAC"], [], "nothing"),
        (["--authorization-mode=Node,RBAC"],
         [object_of("ValidatingWebhookConfiguration", "noderestrict")], "detected"),
        (["--authorization-config=/x"],
         [object_of("ValidatingWebhookConfiguration", "noderestrict"),
          pod("noderestrict-authorizer-cp", "cp", "", "kube-system",
              annotations={"kubernetes.io/config.mirror": "1"})], "noderestrict"),
    ],
)  # fmt: skip
def test_the_set_up_is_told_from_the_objects(
    expose: Any, flags: list[str], more: list[Object], set_up: str
) -> None:
    rest = [one for one in BASE if one["metadata"]["name"] != "kube-apiserver-cp"]
    found = expose([*rest, api_server("cp", *flags), *more], set_up=None)
    assert found.all.set_up == set_up
    assert found.all.why_set_up


def test_older_servers_have_no_impersonation(expose: Any, capsys: Any, tmp_path: Path) -> None:
    found = expose(BASE, "--kubernetes-version", "1.35")
    assert [one.set_up for one in found.all.set_ups] == ["nothing", "in-tree", "noderestrict"]
    arguments = ["--kubernetes-version", "1.35", "--set-up", "impersonation"]
    assert main(["exposure", "--state", written(tmp_path, *BASE), *arguments]) == 2
    assert capsys.readouterr().err == (
        "noderestrict exposure: --set-up impersonation: Kubernetes 1.35 does not have it\n"
    )


# Numbers.


def test_worth_is_in_secrets_of_an_average_worker(expose: Any) -> None:
    secrets = [object_of("Secret", f"s{number}", "a") for number in range(9)]
    objects = [*BASE, *secrets, *granted(to_account("s"), rule([""], ["secrets"], ["list"]))]
    found = expose(objects)
    # w2 has one Secret and w1 has none.
    assert found.all.secrets_per_node == 0.5
    assert (found.nodes["w1"].secrets, found.nodes["w1"].nodes_worth) == (10, 20.0)
    assert (found.nodes["w2"].secrets, found.nodes["w2"].nodes_worth) == (1, 2.0)
    assert found.ways("w1")["all Secrets"].count == 10
    assert found.nodes["w2"].objects == {"secrets": 1}


def test_workers_come_worst_first(expose: Any) -> None:
    found = expose(
        [
            *BASE,
            object_of("Node", "w0"),
            pod("far", "w0", "admin", "kube-system"),
            *granted(to_account("s"), rule([""], ["pods/exec"], ["create"])),
        ]
    )
    assert [(one.name, one.cluster_steps) for one in found.all.nodes] == [
        ("w0", 2), ("w1", 3), ("w2", None),
    ]  # fmt: skip


# Reports and flags.


def everything(node: ExposedNode) -> list[Any]:
    return [(way.to, way.steps) for way in node.ways]


def test_a_baseline_tells_what_changed(expose: Any, tmp_path: Path) -> None:
    worse = [*BASE, pod("far", "w1", "admin", "kube-system"), object_of("Node", "w3")]
    before = tmp_path / "before.json"
    before.write_bytes(msgspec.json.encode(expose(BASE).all))
    changes = expose(worse, "--baseline", str(before)).all.changes
    assert [(one.node, one.change) for one in changes] == [
        ("w1", "worse"), ("w3", "new"),
    ]  # fmt: skip
    before.write_bytes(msgspec.json.encode(expose(worse).all))
    changes = expose(BASE, "--baseline", str(before)).all.changes
    assert ("w1", "better") in [(one.node, one.change) for one in changes]
    before.write_bytes(msgspec.json.encode(expose(BASE).all))
    assert expose(BASE, "--baseline", str(before)).all.changes == ()


def test_a_redacted_report_has_no_names_but_all_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (
        "w-secret-node",
        "acme-ns",
        "acme-sa",
        "acme-pod",
        "acme-role",
        "acme-data",
        "acme-user",
    )
    node, namespace, sa, podname, role, data, user = names
    objects = [
        *BASE,
        pod("far", node, "admin", "kube-system"),
        account(sa, namespace),
        pod(podname, node, sa, namespace, secrets=[data]),
        *granted(
            to_account(sa, namespace), rule([""], ["secrets"], ["get"], [data]),
            rule([""], ["users"], ["impersonate"], [user, f"system:node:{node}"]), name=role,
        ),
        *granted({"kind": "User", "name": user}, rule([""], ["pods"], ["create"]), name=f"{role}2"),
    ]  # fmt: skip
    state = written(tmp_path, *objects)
    for output in ("table", "json"):
        arguments = ["exposure", "--state", state, "--output", output, "--set-up", "in-tree"]
        assert main([*arguments, "--redact"]) == 0
        out = capsys.readouterr().out
        for name in names:
            assert name not in out
        assert main(arguments) == 0
        assert "acme" in capsys.readouterr().out
    findings = msgspec.json.decode(out, type=Findings)
    assert {"cluster-admin", "kube-system"} <= set(_texts(msgspec.to_builtins(findings)))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def test_data_of_secrets_is_never_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = written(tmp_path, *BASE, token("legacy", "admin", "kube-system"))
    for output in ("table", "json"):
        main(["exposure", "--state", state, "--output", output])
        assert "c2VjcmV0" not in capsys.readouterr().out


def test_what_the_files_do_not_hold_is_said(expose: Any) -> None:
    found = expose([pod("p", "w1", "s")], "--fail-on", "cluster-admin")
    assert found.code == 2
    assert {"namespaces", "clusterroles", "serviceaccounts"} <= {
        one.what for one in found.all.not_seen
    }
    assert expose([pod("p", "w1", "s")]).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--state", "gone.json"], "--state gone.json: No such file or directory"),
        (["--state", "ok.json", "--baseline", "gone.json"], "--baseline gone.json: No such file"),
        (["--state", "ok.json", "--baseline", "ok.json"],
         "--baseline ok.json: no report of --output json: "),
        (["--state", "ok.json", "--set-up", "agents"], "--set-up agents needs --agents"),
        (["--state", "ok.json", "--secrets"], "--secrets is for a live cluster"),
        (["--kubernetes-version", "1.36"], "--kubernetes-version is for --state"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, *BASE, name="ok.json")
    assert main(["exposure", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"noderestrict exposure: {message}")
    assert error.count("\n") == 1


def test_the_json_is_as_its_schema_says(expose: Any, tmp_path: Path) -> None:
    schema = json.loads((ROOT / "docs/reference/exposure.schema.json").read_text())
    before = tmp_path / "before.json"
    before.write_bytes(msgspec.json.encode(expose(BASE).all))
    objects = [*BASE, *granted(to_account("s"), rule([""], ["pods/exec"], ["create"]))]
    value = msgspec.to_builtins(expose(objects, "--baseline", str(before)).all)

    def check(given: Any, wanted: Any) -> None:
        if "anyOf" in wanted:
            if given is None:
                assert {"type": "null"} in wanted["anyOf"]
                return
            wanted = next(one for one in wanted["anyOf"] if one != {"type": "null"})
        if "$ref" in wanted:
            wanted = schema["$defs"][wanted["$ref"].rpartition("/")[2]]
        if wanted["type"] == "object" and "properties" in wanted:
            assert set(wanted["required"]) <= set(given) <= set(wanted["properties"])
            for key, one in given.items():
                check(one, wanted["properties"][key])
        elif wanted["type"] == "object":
            for one in given.values():
                check(one, wanted["additionalProperties"])
        elif wanted["type"] == "array":
            for one in given:
                check(one, wanted["items"])
        else:
            kinds: dict[str, Any] = {"string": str, "integer": int, "number": (int, float)}
            assert isinstance(given, kinds[wanted["type"]])

    check(json.loads(json.dumps(value)), schema)
    assert value["changes"]


def test_the_table_fits_a_terminal_and_names_the_worst_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [*BASE, pod("far", "w2", "admin", "kube-system")]
    main(["exposure", "--state", written(tmp_path, *objects), "--set-up", "in-tree"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.index("w2 ") < out.index("w1 ") < out.index("cp ")
    assert out.rstrip().endswith("2 workers; 1 of them lead to cluster-admin.")

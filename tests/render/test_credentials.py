"""What a node could take from our own pods: by our own graph, over every rendered object."""

import fnmatch
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noderestrict.api import corev1
from noderestrict.doctor.placement import placement_of
from noderestrict.graph.graph import Graph
from noderestrict.policy.rules.nodes import label_is_forbidden
from noderestrict.render.load import parsed
from noderestrict.render.workload import CA_SECRET, DEDICATED_NODES, NAMESPACE, NEW_CA, TLS_SECRET
from noderestrict.render.workload import CONTROL_PLANE as CONTROL_PLANE_SERVERS
from tests.render.overlays import FILES, OVERLAYS, PARTS, build

Object = dict[str, Any]
SERVERS = ("noderestrict", CONTROL_PLANE_SERVERS)
ENFORCING = tuple(one for one in OVERLAYS if one != "audit")
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
ETCD = "node-role.kubernetes.io/etcd"
Taint = tuple[str, str]
#: Labels and taints.
NODES: dict[str, tuple[dict[str, str], list[Taint]]] = {
    "control-plane": ({CONTROL_PLANE: ""}, [(CONTROL_PLANE, "NoSchedule")]),
    # Of RKE2: etcd runs there as well.
    "server": (
        {CONTROL_PLANE: "true"},
        [(CONTROL_PLANE, "NoSchedule"), (ETCD, "NoExecute"), ("CriticalAddonsOnly", "NoExecute")],
    ),
    "worker": ({"kubernetes.io/hostname": "worker", "node.kubernetes.io/a": "b"}, []),
    # As it could make itself while nobody refuses labels.
    "liar": ({CONTROL_PLANE: ""}, []),
    "dedicated": ({DEDICATED_NODES: "trusted"}, [(DEDICATED_NODES, "NoSchedule")]),
}
NEW_CAS = [path for path in FILES if path.endswith("new-ca.yaml")]


def templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and the template of every workload, as its pods have it."""
    for value in objects:
        spec = value.get("spec") or {}
        if value["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if value["kind"] in ("Deployment", "DaemonSet", "Job", "CronJob"):
            yield value["metadata"]["name"], spec["template"]


def fits(spec: Object, node: str) -> bool:
    """Tell whether the scheduler may choose a node for a pod."""
    labels, taints = NODES[node]
    tolerated = spec.get("tolerations") or ()
    value = {"metadata": {"name": node, "labels": labels}}
    return placement_of(spec).matching({node: value}) == [node] and all(
        any(
            one.get("key") in (None, key) and one.get("effect") in (None, effect)
            for one in tolerated
        )
        for key, effect in taints
    )


def reached(objects: list[Object]) -> dict[str, set[tuple[str, str, str]]]:
    """Return what each node reaches while every pod that fits runs on it."""
    graph = Graph()
    for name, template in templates(objects):
        for node in NODES:
            if fits(template["spec"], node):
                pod = {
                    "metadata": {**template["metadata"], "name": f"{name}-{node}",
                                 "namespace": NAMESPACE},
                    "spec": {**template["spec"], "nodeName": node},
                }  # fmt: skip
                graph.upsert("pods", msgspec.convert(pod, corev1.Pod))
    return {node: set(graph.reachable(node)) for node in NODES}


def secrets(vertices: set[tuple[str, str, str]]) -> set[str]:
    return {name for kind, _, name in vertices if kind == "secrets"}


def rights(objects: list[Object]) -> dict[str, list[Object]]:
    """Return the rules that bind each account."""
    roles = {(one["kind"], one["metadata"]["name"]): one["rules"] for one in objects
             if one["kind"] in ("Role", "ClusterRole")}  # fmt: skip
    found: dict[str, list[Object]] = {
        one["metadata"]["name"]: [] for one in objects if one["kind"] == "ServiceAccount"
    }
    for one in objects:
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            reference = one["roleRef"]
            for subject in one["subjects"]:
                assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", NAMESPACE)
                found[subject["name"]] += roles[reference["kind"], reference["name"]]
    return found


def may(rules: list[Object], verb: str, group: str, resource: str, name: str) -> bool:
    def matches(patterns: list[str], value: str) -> bool:
        return any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)

    return any(
        matches(rule["verbs"], verb)
        and matches(rule.get("apiGroups", []), group)
        and matches(rule.get("resources", []), resource)
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
        for rule in rules
    )


WRITES = ("create", "update", "patch", "delete", "deletecollection", "bind", "escalate",
          "impersonate")  # fmt: skip
WEBHOOKS = ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "noderestrict")


def written(rules: list[Object]) -> set[tuple[str, str, str]]:
    """Return verb, resource and names of all that rules let write."""
    return {
        (verb, resource, ",".join(rule.get("resourceNames", [])))
        for rule in rules
        for verb in rule["verbs"]
        if verb in (*WRITES, "*")
        for resource in rule.get("resources", ["/"])
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_standing_account_can_change_the_registration_or_get_a_token(overlay: str) -> None:
    found = rights(build(overlay))
    assert found["noderestrict"]
    for account, rules in found.items():
        assert not any(may(rules, verb, *WEBHOOKS) for verb in WRITES)
        allowed = {("create", "subjectaccessreviews", ""), ("create", "tokenreviews", "")}
        if account != "noderestrict":
            allowed = {("update", "secrets", TLS_SECRET)}
        assert written(rules) <= allowed, account


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_reaches_nothing_of_ours(overlay: str) -> None:
    found = reached(build(overlay))
    assert found["worker"] == found["dedicated"] == set()
    assert secrets(found["control-plane"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_our_pods_run_on_control_plane_nodes_of_every_distribution(overlay: str) -> None:
    replacing = parsed(FILES.get(f"overlays/{overlay}/new-ca.yaml", ""))
    for name, template in templates([*build(overlay), *replacing]):
        for node in ("control-plane", "server"):
            assert fits(template["spec"], node), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_server_that_watches_its_certificate_may_read_that_secret_alone_and_no_more_nodes_may(
    overlay: str,
) -> None:
    built = build(overlay)
    (server,) = [template for name, template in templates(built) if name in SERVERS]
    (container,) = server["spec"]["containers"]
    assert f"--tls-secret={NAMESPACE}/{TLS_SECRET}" in container["args"]
    rules = rights(built)["noderestrict"]
    for verb in ("get", "list", "watch"):
        assert may(rules, verb, "", "secrets", TLS_SECRET)
        assert not may(rules, verb, "", "secrets", CA_SECRET)


@pytest.mark.parametrize("overlay", ENFORCING)
def test_no_node_reaches_the_ca_and_trusted_ones_what_their_pods_need(overlay: str) -> None:
    found = secrets(reached(build(overlay))["control-plane"])
    assert CA_SECRET not in found
    renewing = set() if overlay == "cert-manager" else {"noderestrict-renewal-token"}
    assert found == {"noderestrict-token", TLS_SECRET} | renewing


def test_before_labels_are_enforced_a_liar_gets_what_reads_and_nothing_else() -> None:
    built = build("audit")
    found = reached(built)["liar"]
    assert secrets(found) == {"noderestrict-token", TLS_SECRET}
    accounts = {name for kind, _, name in found if kind == "serviceaccounts"}
    assert accounts == {"noderestrict"}
    kinds = {one["kind"] for one in built}
    assert kinds.isdisjoint({"DaemonSet", "CronJob", "Job"})
    # No CA is kept, and nobody may read one.
    assert not any(may(rules, "get", "", "secrets", CA_SECRET) for rules in rights(built).values())


def test_labels_that_choose_nodes_are_none_that_nodes_may_give_themselves() -> None:
    for overlay in OVERLAYS:
        for components in ((), ("dedicated-nodes",)):
            found = list(templates(build(overlay, components)))
            assert found
            for name, template in found:
                keys = placement_of(template["spec"]).selecting()
                assert keys, name
                assert all(map(label_is_forbidden, keys))


@pytest.mark.parametrize("overlay", ["audit", "cert-manager", "self-signed"])
def test_without_control_plane_nodes_our_pods_run_on_nodes_that_are_set_apart(overlay: str) -> None:
    found = reached(build(overlay, ["dedicated-nodes"]))
    assert found["worker"] == found["control-plane"] == found["server"] == found["liar"] == set()
    assert TLS_SECRET in secrets(found["dedicated"])


@pytest.mark.parametrize("path", NEW_CAS)
def test_who_changes_the_ca_has_no_secret_and_a_short_token_and_is_gone_at_once(path: str) -> None:
    objects = parsed(FILES[path])
    assert "Secret" not in {one["kind"] for one in objects}
    found = reached(objects)
    assert found["worker"] == set()
    assert secrets(found["control-plane"]) == set()
    (job,) = [one["spec"] for one in objects if one["kind"] == "Job"]
    assert job["ttlSecondsAfterFinished"] == 0
    assert job["activeDeadlineSeconds"] <= 600
    (token,) = job["template"]["spec"]["volumes"]
    (bound,) = [one["serviceAccountToken"] for one in token["projected"]["sources"]
                if "serviceAccountToken" in one]  # fmt: skip
    assert bound == {"path": "token", "expirationSeconds": 600}
    (rules,) = rights(objects).values()
    assert written(rules) == {
        ("update", "secrets", f"{CA_SECRET},{TLS_SECRET}"),
        ("patch", "validatingwebhookconfigurations", "noderestrict"),
    }


def test_what_changes_the_ca_is_in_no_overlay() -> None:
    for overlay in OVERLAYS:
        assert NEW_CA not in {one["metadata"]["name"] for one in build(overlay)}
    assert len(NEW_CAS) == 3


def test_pods_that_renew_are_gone_once_they_have_finished() -> None:
    jobs = [one for overlay in OVERLAYS for one in build(overlay) if one["kind"] == "CronJob"]
    assert jobs
    for job in jobs:
        assert job["spec"]["successfulJobsHistoryLimit"] == 0
        assert job["spec"]["failedJobsHistoryLimit"] == 0
        assert job["spec"]["jobTemplate"]["spec"]["ttlSecondsAfterFinished"] == 0


def pods(value: Any) -> Iterator[Object]:
    """Yield the spec of every pod that an object makes."""
    if isinstance(value, dict):
        if value.get("containers"):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from pods(one)


def tokens(pod: Object) -> list[Object]:
    """Return the volumes for which a kubelet asks for a token."""
    return [
        volume
        for volume in pod.get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if "serviceAccountToken" in source
    ]


def test_only_what_changes_the_ca_asks_the_kubelet_for_a_token() -> None:
    asking = set()
    accounts = set()
    for path, text in FILES.items():
        for value in parsed(text):
            for pod in pods(value):
                # Without this, a kubelet asks for one that no volume here names.
                assert pod["automountServiceAccountToken"] is False, path
                accounts.add(pod["serviceAccountName"])
                if tokens(pod):
                    asking.add(path)
    assert asking == set(NEW_CAS)
    assert accounts == {"noderestrict", "noderestrict-renewal", NEW_CA}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_of_an_overlay_have_the_token_of_a_secret_and_no_other(overlay: str) -> None:
    found = [pod for value in build(overlay) for pod in pods(value)]
    assert found
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert tokens(pod) == []
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["token"]["secret"]["secretName"] == f"{pod['serviceAccountName']}-token"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on the PATH")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_builds_the_same_objects(overlay: str, tmp_path: Path) -> None:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    # With and without the component.
    own = tmp_path / "own"
    own.mkdir()
    own.joinpath("kustomization.yaml").write_text(
        f"resources: [../overlays/{overlay}/install, ../overlays/{overlay}/enforce]\n"
        "components: [../components/dedicated-nodes]\n"
    )
    for folder, parts, components in (
        (tmp_path / "overlays" / overlay / "install", ["install"], ()),
        (tmp_path / "overlays" / overlay / "enforce", ["enforce"], ()),
        (own, PARTS, ("dedicated-nodes",)),
    ):
        done = subprocess.run(
            ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
        )
        theirs = {key(one): one for one in parsed(done.stdout) if one}
        assert theirs == {key(one): one for one in build(overlay, components, parts=parts)}


def key(value: Object) -> tuple[str, str]:
    return value["kind"], value["metadata"]["name"]

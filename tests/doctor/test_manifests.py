"""What is installed is compared with what would be rendered now, whichever overlay that is."""

import asyncio
import base64
import copy
import gzip
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

from noderestrict.cluster.judge import connected
from noderestrict.doctor.checks import manifests
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding
from noderestrict.doctor.report import as_json
from noderestrict.doctor.run import examine
from noderestrict.policy.extra import Extra
from noderestrict.render import manifests as rendering
from noderestrict.render.manifests import OVERLAYS
from noderestrict.render.names import Installation
from noderestrict.render.overlay import build
from tests.cli.store import stored
from tests.doctor.test_credentials import WEBHOOKS, Cluster, path_of

Object = dict[str, Any]
COMPONENTS = (
    (), ("client-verification",), ("dedicated-nodes",), ("mirror-pods",), ("monitoring",),
    ("client-verification", "mirror-pods", "monitoring"),
)  # fmt: skip
RBAC = "/apis/rbac.authorization.k8s.io/v1"
HOSTS = "control-plane"
SPACE = "namespaces/noderestrict"
DEPLOYMENT = f"/apis/apps/v1/{SPACE}/deployments/noderestrict"


class Doctor:
    def __init__(self, cluster: Cluster, kubeconfig: Path) -> None:
        self.cluster = cluster
        self._kubeconfig = str(kubeconfig)

    def __call__(self, **options: Any) -> list[Finding]:
        return asyncio.run(self._findings(Options(**options)))

    async def _findings(self, options: Options) -> list[Finding]:
        async with connected(self._kubeconfig, None) as connection:
            found = examine(connection, options, [manifests.CHECK])
            return [finding async for _, finding in found]

    def install(
        self, overlay: str, components: Sequence[str] = (), options: rendering.Options | None = None
    ) -> None:
        """Install an overlay with its registration, as kubectl does."""
        files = rendering.manifests(options)
        self.cluster.install(overlay, *components)
        for value in build(overlay, files, components):
            name = value["metadata"]["name"]
            self.cluster.objects[path_of(value)] = copy.deepcopy(value)
            if value["kind"] in ("Deployment", "DaemonSet"):
                path = path_of(value).removesuffix(f"/{name}")
                self.cluster.lists[path] = [self.cluster.objects[path_of(value)]]
            if value["kind"] == "ValidatingWebhookConfiguration":
                self.cluster.objects[f"{WEBHOOKS}/noderestrict"] = value


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Doctor]:
    cluster = Cluster()
    with stored(cluster, tmp_path) as kubeconfig:
        yield Doctor(cluster, kubeconfig)


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.status, one.message) for one in findings]


@pytest.mark.parametrize("components", COMPONENTS, ids=lambda names: "+".join(names) or "none")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_was_rendered_is_installed_as_rendered(
    doctor: Doctor, overlay: str, components: tuple[str, ...]
) -> None:
    doctor.install(overlay, components)
    assert told(doctor()) == [("pass", f"overlay {overlay} is installed as rendered")]


@pytest.mark.parametrize(
    "options",
    [
        rendering.Options(Extra.of(["nodes/finalizers"])),
        rendering.Options(api_audiences=("a", "b")),
        rendering.Options(api_servers=("10.0.0.1:6443", "10.0.0.2:6443")),
        rendering.Options(infrastructure=("cni/agent",)),
        rendering.Options(infrastructure=()),
        rendering.Options(kubernetes_version=27),
    ],
    ids=["strict", "audiences", "servers", "accounts", "no accounts", "1.27"],
)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_flags_of_render_change_is_no_difference(
    doctor: Doctor, overlay: str, options: rendering.Options
) -> None:
    doctor.install(overlay, options=options)
    assert [one.status for one in doctor(extra=options.extra)] == ["pass"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_installation_elsewhere_is_compared_with_what_is_rendered_for_there(
    doctor: Doctor, overlay: str
) -> None:
    elsewhere = Installation(namespace="isolation", registration="nodes", port=9443)
    doctor.install(overlay, options=rendering.Options(installation=elsewhere))
    found = doctor(namespace="isolation", configuration="nodes")
    assert told(found) == [("pass", f"overlay {overlay} is installed as rendered")]
    (deployment,) = doctor.cluster.lists[
        f"/apis/apps/v1/namespaces/isolation/{'daemonsets' if overlay == HOSTS else 'deployments'}"
    ]
    deployment["spec"]["template"]["spec"]["hostPID"] = True
    (finding,) = doctor(namespace="isolation", configuration="nodes")
    assert finding.command.startswith("kubectl -n isolation patch ")


def released(objects: Sequence[Object]) -> Object:
    """Return a Secret in which Helm keeps a release."""
    content = json.dumps({"name": "nodes", "manifest": yaml.safe_dump_all(objects)}).encode()
    data = base64.b64encode(base64.b64encode(gzip.compress(content))).decode()
    metadata = {"name": "sh.helm.release.v1.nodes.v3", "namespace": "noderestrict"}
    return {"type": "helm.sh/release.v1", "metadata": metadata, "data": {"release": data}}


def test_a_release_of_helm_is_compared_with_what_helm_rendered(doctor: Doctor) -> None:
    """No overlay has what values changed."""
    doctor.install("audit")
    deployment = doctor.cluster.objects[DEPLOYMENT]
    deployment["metadata"]["annotations"] = {"meta.helm.sh/release-name": "nodes"}
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    arguments[arguments.index("--mode=audit")] = "--mode=warn"
    arguments.append("--rule-modes=nodes/labels=enforce")
    secrets = f"/api/v1/{SPACE}/secrets"
    assert {one.status for one in doctor()} == {"warn"}
    kept = [one for one in doctor.cluster.objects.values() if one.get("kind")]
    doctor.cluster.add(secrets, released(copy.deepcopy(kept)))
    assert told(doctor()) == [("pass", "release nodes is installed as rendered")]
    arguments.pop()
    (finding,) = doctor()
    assert (finding.status, "--rule-modes=nodes/labels" in finding.message) == ("warn", True)
    del doctor.cluster.objects[f"{RBAC}/clusterroles/noderestrict"]
    assert doctor()[0].command == (
        "helm upgrade nodes manifests/chart --namespace noderestrict --reset-then-reuse-values"
    )
    doctor.cluster.lists[secrets][-1]["data"]["release"] = "bm90aGluZw=="
    (finding,) = doctor()
    assert finding.status == "unknown"
    assert "Secret sh.helm.release.v1.nodes.v3 holds no release: " in finding.message


def test_where_no_server_runs_as_a_pod_nothing_is_compared(doctor: Doctor) -> None:
    assert doctor() == []


def put(*path: str | int, value: Any) -> Callable[[Object], None]:
    def change(found: Object) -> None:
        at: Any = found
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


POD = ("spec", "template", "spec")
FIRST = (*POD, "containers", 0)
#: Path of an object, how it is changed, and what is said of it.
FAULTS: dict[str, tuple[str, Callable[[Object], None], str, str]] = {
    "more rights": (
        f"{RBAC}/clusterroles/noderestrict", put("rules", 0, "verbs", value=["get", "list", "*"]),
        "fail", 'ClusterRole noderestrict: /rules/0/verbs/2 is "*", not rendered',
    ),
    "somebody else's rights": (
        f"{RBAC}/clusterrolebindings/noderestrict", put("subjects", 0, "name", value="default"),
        "fail", "ClusterRoleBinding noderestrict: ",
    ),
    "another role": (
        f"{RBAC}/{SPACE}/rolebindings/noderestrict", put("roleRef", "name", value="admin"),
        "fail", 'RoleBinding noderestrict/noderestrict: /roleRef/name is "admin", rendered as',
    ),
    "another port": (
        f"/api/v1/{SPACE}/services/noderestrict", put("spec", "ports", 0, "targetPort", value=1),
        "fail", "Service noderestrict/noderestrict: https: /spec/ports/0/targetPort is 1, rendered",
    ),
    "another selector": (
        f"/api/v1/{SPACE}/services/noderestrict", put("spec", "selector", value={"a": "b"}),
        "fail", 'Service noderestrict/noderestrict: /spec/selector/a is "b", not rendered',
    ),
    "a mounted token": (
        f"/api/v1/{SPACE}/serviceaccounts/noderestrict",
        put("automountServiceAccountToken", value=True),
        "fail", "ServiceAccount noderestrict/noderestrict: /automountServiceAccountToken is true",
    ),
    "the host's processes": (
        DEPLOYMENT, put(*POD, "hostPID", value=True),
        "fail", "Deployment noderestrict/noderestrict: /spec/template/spec/hostPID is true, not",
    ),
    "root": (
        DEPLOYMENT, put(*POD, "securityContext", "runAsNonRoot", value=False),
        "fail", "Deployment noderestrict/noderestrict: /spec/template/spec/securityContext/runAsNo",
    ),
    "an argument": (
        DEPLOYMENT, put(*FIRST, "args", 4, value="--metrics-address=0.0.0.0:1"),
        "warn", "Deployment noderestrict/noderestrict: noderestrict: /spec/template/spec/container",
    ),
    "one replica": (
        DEPLOYMENT, put("spec", "replicas", value=1),
        "warn", "Deployment noderestrict/noderestrict: /spec/replicas is 1, rendered as 2",
    ),
    "no enforcement": (
        f"/api/v1/{SPACE}".removesuffix("s/noderestrict") + "s/noderestrict",
        put("metadata", "labels", "pod-security.kubernetes.io/enforce", value="privileged"),
        "warn", "Namespace noderestrict: /metadata/labels/pod-security.kubernetes.io~1enforce is "
        '"privileged", rendered as "restricted"',
    ),
    "an open network": (
        f"/apis/networking.k8s.io/v1/{SPACE}/networkpolicies/noderestrict-others",
        put("spec", "ingress", value=[{}]),
        "warn", "NetworkPolicy noderestrict/noderestrict-others: /spec/ingress is [{}], not rend",
    ),
    "another Secret to renew with": (
        f"{RBAC}/{SPACE}/roles/noderestrict-renewal",
        put("rules", 1, "resourceNames", value=["noderestrict-tls", "other"]),
        "fail", 'Role noderestrict/noderestrict-renewal: /rules/1/resourceNames/1 is "other", not',
    ),
    "another time": (
        f"/apis/batch/v1/{SPACE}/cronjobs/noderestrict-renewal", put("spec", "suspend", value=True),
        "warn", "CronJob noderestrict/noderestrict-renewal: /spec/suspend is true, rendered as fal",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_changed_object_is_told_with_both_values_and_what_mends_it(
    doctor: Doctor, fault: tuple[str, Callable[[Object], None], str, str]
) -> None:
    path, change, status, says = fault
    doctor.install("self-signed")
    change(doctor.cluster.objects[path])
    found = doctor()
    assert found[0].status == status
    assert found[0].message.startswith(says)
    for command in dict.fromkeys(one.command for one in found):
        run(doctor.cluster, command.splitlines()[0])
    if not found[0].command.startswith("kubectl -n noderestrict delete"):
        assert [one.status for one in doctor()] == ["pass"]
    (first, *_) = json.loads(as_json([(manifests.CHECK, one) for one in found]))
    assert first["patch"]
    assert {"op", "path"} <= first["patch"][0].keys()


def run(cluster: Cluster, command: str) -> None:
    """Do what kubectl does for a command that patches or deletes."""
    words = shlex.split(command)
    assert words.pop(0) == "kubectl"
    space = ""
    if words[0] == "-n":
        space = f"/{words[1]}/"
        del words[:2]
    verb, kind, name, *flags = words
    (path,) = [
        one for one, value in cluster.objects.items()
        if one.endswith(f"/{name}") and value.get("kind", "").lower() == kind and space in one
    ]  # fmt: skip
    if verb == "delete":
        assert not flags
        del cluster.objects[path]
        return
    assert (verb, flags[0]) == ("patch", "--type=json")
    patch = json.loads(flags[1].removeprefix("--patch="))
    changed = jsonpatch.apply_patch(cluster.objects[path], patch)
    # The lists share it.
    cluster.objects[path].clear()
    cluster.objects[path].update(changed)


def test_what_cannot_be_changed_is_made_anew(doctor: Doctor) -> None:
    doctor.install("self-signed")
    path = f"{RBAC}/{SPACE}/rolebindings/noderestrict"
    doctor.cluster.objects[path]["roleRef"]["name"] = "admin"
    (found,) = doctor()
    assert found.command.splitlines() == [
        "kubectl -n noderestrict delete rolebinding noderestrict",
        "kubectl apply -k manifests/overlays/self-signed/install",
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{RBAC}/clusterroles/noderestrict", "fail"),
        (f"/api/v1/{SPACE}/secrets/noderestrict-token", "fail"),
        (f"/apis/policy/v1/{SPACE}/poddisruptionbudgets/noderestrict", "warn"),
        (f"/apis/networking.k8s.io/v1/{SPACE}/networkpolicies/noderestrict-others", "warn"),
    ],
)
def test_a_missing_object_is_told_with_what_installs_it(
    doctor: Doctor, path: str, status: str
) -> None:
    doctor.install("self-signed")
    del doctor.cluster.objects[path]
    (found,) = doctor()
    assert found.status == status
    assert found.message.endswith(" is missing")
    assert found.command == "kubectl apply -k manifests/overlays/self-signed/install"


def test_what_installs_it_has_the_flags_that_the_servers_have(doctor: Doctor) -> None:
    options = rendering.Options(
        Extra.of(["nodes/finalizers"]), ("a",), ("10.0.0.1:6443",), ("cni/agent",)
    )
    doctor.install("self-signed", options=options)
    del doctor.cluster.objects[f"{RBAC}/clusterroles/noderestrict"]
    (found,) = doctor(extra=options.extra)
    render, apply = found.command.splitlines()
    assert render == (
        "noderestrict render manifests --strict-rules=nodes/finalizers --api-audiences=a "
        "--api-server=10.0.0.1:6443 --infrastructure-accounts=cni/agent"
    )
    assert apply.startswith("kubectl apply -k ")


def test_a_component_that_lost_a_part_is_told(doctor: Doctor) -> None:
    doctor.install("self-signed", ["mirror-pods", "client-verification"])
    registration = "/apis/admissionregistration.k8s.io/v1"
    del doctor.cluster.objects[
        f"{registration}/validatingadmissionpolicybindings/noderestrict-mirror-pods"
    ]
    deployment = doctor.cluster.objects[DEPLOYMENT]
    deployment["spec"]["template"]["spec"]["containers"][0]["args"].pop()
    assert told(doctor()) == [
        (
            "warn",
            "Deployment noderestrict/noderestrict: noderestrict: /spec/template/spec/containers/0/"
            'args/8 is not set, rendered as "--client-ca-file=/etc/noderestrict/client-ca/ca.crt"',
        ),
        ("fail", "ValidatingAdmissionPolicyBinding noderestrict-mirror-pods is missing"),
    ]


def test_what_another_overlay_left_is_told(doctor: Doctor) -> None:
    doctor.install("self-signed")
    doctor.cluster.lists[f"/apis/apps/v1/{SPACE}/deployments"] = []
    doctor.install("control-plane")
    assert told(doctor()) == [
        ("warn", f"{kind} noderestrict/{name} should not exist")
        for kind, name in (
            ("Deployment", "noderestrict"), ("PodDisruptionBudget", "noderestrict"),
            ("NetworkPolicy", "noderestrict"), ("NetworkPolicy", "noderestrict-others"),
            ("Service", "noderestrict"),
        )
    ]  # fmt: skip
    for one in doctor():
        assert one.command.startswith("kubectl -n noderestrict delete ")
        run(doctor.cluster, one.command)
    assert [one.status for one in doctor()] == ["pass"]


def test_many_differences_of_one_object_share_a_line(doctor: Doctor) -> None:
    doctor.install("self-signed")
    role = doctor.cluster.objects[f"{RBAC}/clusterroles/noderestrict"]
    role["rules"] += [{"apiGroups": [str(one)], "verbs": ["*"]} for one in range(100)]
    found = doctor()
    assert len(found) == 20
    assert found[-1].message.endswith("not rendered, and 80 more differences")
    assert len(found[-1].patch) == 81
    for command in dict.fromkeys(one.command for one in found):
        run(doctor.cluster, command)
    assert [one.status for one in doctor()] == ["pass"]


def test_what_cannot_be_read_is_unknown(doctor: Doctor) -> None:
    doctor.install("self-signed")
    doctor.cluster.refused.add(("GET", f"{RBAC}/clusterroles/noderestrict"))
    (found,) = doctor()
    assert (found.status, "403" in found.message) == ("unknown", True)

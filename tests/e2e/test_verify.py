"""``noderestrict verify`` tells what holds on real API servers, and leaves no trace."""

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.policy.releases import parse_release
from noderestrict.probes.access import ACCESS_RULES
from noderestrict.probes.table import expected_rules
from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.conftest import USER, namespace_ready
from tests.e2e.control_plane import ISSUER, ControlPlane
from tests.e2e.test_registration import RBAC, WEBHOOKS
from tests.e2e.twins import claim, until
from tests.serving.tls import Server, serving

pytestmark = pytest.mark.long

NAMESPACED = "/api/v1/namespaces/default"
PODS = f"{NAMESPACED}/pods"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
#: Of the API servers, which serve nothing that newer rules are about but pod certificates.
RELEASE = parse_release("1.36")
RULES = expected_rules(release=RELEASE)
#: The authorizer gets in before admission, or the API server itself does.
BEFORE_ADMISSION = {
    "identity/node-name": "authorizer",
    "request/object": "API server",
    "pods/closed-world": "authorizer",
    "persistentvolumeclaims/closed-world": "authorizer",
    "leases/namespace": "authorizer",
    "podcertificaterequests/only-create": "authorizer",
}
#: Nothing can be asked of them while the resource is served, or the API server drops the field.
NOTHING = {"podcertificaterequests/gate"}
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]
#: Of the API servers themselves.
HEARTBEATS = (
    "/registry/leases/kube-system/apiserver-",
    "/registry/masterleases/",
    "/registry/peerserverleases/",
)
REVIEWS = {"selfsubjectreviews", "selfsubjectaccessreviews", "subjectaccessreviews"}


def pod(name: str, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "serviceAccountName": name,
            "containers": [
                {"name": "c", "image": "pause", "resources": {"requests": {"cpu": "1m"}}}
            ],
            "volumes": [
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                {
                    "name": "p",
                    "projected": {
                        "sources": [
                            {
                                "podCertificate": {
                                    "signerName": "signer.example.com/pods",
                                    "keyType": "ED25519",
                                    "credentialBundlePath": "p",
                                }
                            }
                        ]
                    },
                },
                {"name": "s", "secret": {"secretName": f"{name}-secret"}},
                {"name": "m", "configMap": {"name": f"{name}-map"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": f"{name}-claim"}},
            ],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": f"{name}-gpu"}],
        },
    }


def volume(claim_name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{claim_name}-volume"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "default", "name": claim_name},
            "csi": {"driver": "csi.example.com", "volumeHandle": "h"},
        },
    }


@dataclass
class Verified:
    """API servers over one etcd: with neither plugin, with both, with the admission one only."""

    control_plane: ControlPlane
    folder: Path
    bare: int
    both: int
    admission_only: int

    def kubeconfig(self, name: str, group: str, port: int) -> str:
        file = self.folder / f"{name.replace(':', '-')}-{port}.kubeconfig"
        user = self.control_plane.user(name, group)
        file.write_text(json.dumps(user.kubeconfig(port)))
        return str(file)

    def events(self) -> list[dict[str, Any]]:
        lines = (self.folder / "audit.log").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verified]:
    folder = tmp_path_factory.mktemp("verify")
    (folder / "policy.yaml").write_text(yaml.safe_dump(AUDIT))
    control_plane = ControlPlane(
        {
            "runtime-config": "certificates.k8s.io/v1beta1=true",
            "feature-gates": "PodCertificateRequest=true",
            "audit-policy-file": str(folder / "policy.yaml"),
            "audit-log-path": str(folder / "audit.log"),
        },
    )
    try:
        both = control_plane.start_in_tree()
        admission_only = control_plane.start_in_tree("admission-only", authorization_mode="RBAC")
        admin = control_plane.admin
        namespace_ready(admin)
        for name in ("kube-system", "kube-node-lease"):
            with contextlib.suppress(Exception):
                admin.create(
                    "/api/v1/namespaces",
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
                )
        for name in ("n1", "n2"):
            admin.create(
                "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
            )
        for name, node in (("web", "n1"), ("db", "n1"), ("far", "n2")):
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
            admin.create(f"{NAMESPACED}/serviceaccounts", account)
            admin.create(
                f"{NAMESPACED}/persistentvolumeclaims",
                claim(f"{name}-claim", volumeName=f"{name}-claim-volume"),
            )
            admin.create("/api/v1/persistentvolumes", volume(f"{name}-claim"))
            admin.create(PODS, pod(name, node))
        admin.create(
            "/apis/storage.k8s.io/v1/csidrivers",
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "CSIDriver",
                "metadata": {"name": "csi.example.com"},
                "spec": {},
            },
        )
        admin.create(
            "/apis/storage.k8s.io/v1/volumeattachments",
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "VolumeAttachment",
                "metadata": {"name": "attachment"},
                "spec": {
                    "attacher": "csi.example.com",
                    "nodeName": "n1",
                    "source": {"persistentVolumeName": "web-claim-volume"},
                },
            },
        )
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
        yield Verified(control_plane, folder, control_plane.port, both, admission_only)
    finally:
        control_plane.stop()


Verify = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def verify(verified: Verified, capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(port: int, *flags: str, user: str = "verifier", group: str = "system:masters") -> Any:
        kubeconfig = verified.kubeconfig(user, group, port)
        capsys.readouterr()
        code = main(
            [
                "verify",
                "--kubeconfig",
                kubeconfig,
                "--output",
                "json",
                "--rules",
                str(RELEASE),
                *flags,
            ]
        )
        return code, json.loads(capsys.readouterr().out)

    return run


def by_rule(found: dict[str, Any]) -> dict[str, Any]:
    return {rule["rule"]: rule for rule in found["rules"]}


def held_by(found: dict[str, Any], half: str) -> dict[str, str]:
    """Return who holds each rule of a half, or the result of those that nobody does."""
    return {
        rule["rule"]: " and ".join(rule["by"]) if rule["result"] == "holds" else rule["result"]
        for rule in found["rules"]
        if rule["half"] == half
    }


def expected_admission(by: str) -> dict[str, str]:
    return {
        rule: "not applicable" if rule in NOTHING else BEFORE_ADMISSION.get(rule, by)
        for rule in RULES
    }


@contextlib.contextmanager
def nodes_may(verified: Verified, verbs: list[str]) -> Iterator[None]:
    """Let RBAC grant nodes verbs on all resources."""
    admin = verified.control_plane.admin
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]
    role = {**cluster_role(), "metadata": {"name": "most"}, "rules": rules}
    group = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}
    binding = cluster_role_binding(group)
    binding["metadata"]["name"] = binding["roleRef"]["name"] = "most"
    admin.create(f"{RBAC}/clusterroles", role)
    admin.create(f"{RBAC}/clusterrolebindings", binding)
    try:
        yield
    finally:
        admin.delete(f"{RBAC}/clusterrolebindings/most")
        admin.delete(f"{RBAC}/clusterroles/most")


@contextlib.contextmanager
def ours(verified: Verified, *flags: str) -> Iterator[Server]:
    """Run our webhook, registered."""
    control_plane = verified.control_plane
    with contextlib.ExitStack() as stack:
        folder = verified.folder / f"ours-{len(list(verified.folder.iterdir()))}"
        folder.mkdir()
        (folder / "kubeconfig").write_text(json.dumps(control_plane.user(USER).kubeconfig()))
        server = stack.enter_context(
            serving(
                folder, "--kubeconfig", str(folder / "kubeconfig"),
                "--feature-gates", "PodCertificateRequest=true", "--api-audiences", ISSUER, *flags,
                ca=control_plane.ca, state=False,
            )
        )  # fmt: skip
        until("the server is ready", lambda: server.request("/readyz")[0] == 200, 60)
        bundle = base64.b64encode(control_plane.ca.certificate).decode()
        url = f"https://127.0.0.1:{server.port}/validate"
        configuration = webhook_configuration({"url": url, "caBundle": bundle})
        control_plane.admin.create(WEBHOOKS, configuration)
        name = configuration["metadata"]["name"]
        stack.callback(control_plane.admin.delete, f"{WEBHOOKS}/{name}")
        yield server


def settled(
    check: Callable[[], tuple[int, dict[str, Any]]], wanted: Callable[[dict[str, Any]], bool]
) -> tuple[int, dict[str, Any]]:
    """Return what is found once the API server follows what was installed just now."""
    end = time.monotonic() + 60
    while not wanted((found := check())[1]):
        assert time.monotonic() < end, json.dumps(found[1], indent=1)
        time.sleep(0.2)
    return found


def test_the_plugin_and_the_authorizer_hold_every_rule(verified: Verified, verify: Verify) -> None:
    code, found = verify(verified.both, "--node", "n1")
    assert held_by(found, "admission") == expected_admission("NodeRestriction plugin")
    assert set(held_by(found, "authorizer").values()) == {
        "Node authorizer", "no authorizer allows it"
    }  # fmt: skip
    assert [rule["rule"] for rule in found["rules"]] == [*RULES, *(r.id for r in ACCESS_RULES)]
    assert found["release"] == "at least those of Kubernetes 1.34"
    assert not found["notes"]
    assert code == 0


def test_without_the_plugin_only_what_the_authorizer_refuses_holds(
    verified: Verified, verify: Verify
) -> None:
    code, found = verify(verified.bare, "--node", "n1")
    expected = expected_admission("does not hold")
    # Without a plugin that sees what was sent, nothing comes of it.
    expected["nodes/config-source"] = "not applicable"
    assert held_by(found, "admission") == expected
    assert set(held_by(found, "authorizer").values()) == {
        "Node authorizer", "no authorizer allows it"
    }  # fmt: skip
    assert found["release"].startswith("those of no release")
    assert code == 1


def test_without_the_authorizer_reads_do_not_hold(verified: Verified, verify: Verify) -> None:
    with nodes_may(verified, VERBS):
        code, found = settled(
            lambda: verify(verified.admission_only, "--node", "n1"),
            lambda found: (
                by_rule(found)["read/secrets"]["attempts"][1]["outcome"]["state"] == "passed"
            ),
        )
    assert set(held_by(found, "authorizer").values()) == {"does not hold"}
    assert "ClusterRoleBinding" in by_rule(found)["read/secrets"]["why"][0]
    held = held_by(found, "admission")
    # The object that it takes does not exist, and now the API server says so.
    assert held.pop("podcertificaterequests/only-create") == "unknown"
    plugin = dict.fromkeys(held, "NodeRestriction plugin")
    assert held == plugin | {
        "request/object": "API server", "podcertificaterequests/gate": "not applicable"
    }  # fmt: skip
    assert code == 1


def test_an_audience_that_the_authorizers_grant_is_no_hole(
    verified: Verified, verify: Verify
) -> None:
    with nodes_may(verified, ["*"]):
        _, found = settled(
            lambda: verify(verified.both, "--node", "n1"),
            lambda found: by_rule(found)["serviceaccounts-token/audience"]["result"] != "holds",
        )
    rule = by_rule(found)["serviceaccounts-token/audience"]
    assert rule["result"] == "unknown"
    assert "let the node request-serviceaccounts-token-audience" in rule["why"][0]


def test_where_nodes_may_do_nothing_no_rule_holds(verified: Verified, verify: Verify) -> None:
    code, found = verify(verified.admission_only, "--node", "n1")
    assert {rule["result"] for rule in found["rules"]} == {"does not hold", "not applicable"}
    assert "must pass, but is refused (authorizer)" in by_rule(found)["nodes/taints"]["why"][0]
    assert found["release"] == "unknown"
    assert code == 1


def test_our_webhook_alone_holds_every_rule(verified: Verified, verify: Verify) -> None:
    with ours(verified):
        code, found = settled(
            lambda: verify(verified.bare, "--node", "n1"),
            lambda found: by_rule(found)["leases/own-name"]["result"] == "holds",
        )
    expected = expected_admission("noderestrict webhook")
    expected["nodes/config-source"] = "not applicable"
    # The API server takes no mirror pods with resource claims.
    expected["pods/mirror-references"] = "noderestrict webhook and API server"
    assert held_by(found, "admission") == expected
    rules = by_rule(found)
    assert rules["nodes/labels"]["ours"] == "refuses"
    # Not ours is what the authorizer refuses, but asked directly we would.
    assert rules["leases/namespace"]["ours"] == "not reached; asked directly: refuses"
    assert found["release"] == "at least those of Kubernetes 1.34"
    assert code == 0


def test_the_release_of_older_rules_is_told(verified: Verified, verify: Verify) -> None:
    with ours(verified, "--rules", "1.33.2"):
        code, found = settled(
            lambda: verify(verified.bare, "--node", "n1"),
            lambda found: by_rule(found)["leases/own-name"]["result"] == "holds",
        )
        # None of these are missing from what is asked for here.
        _, older = verify(verified.bare, "--node", "n1", "--rules", "1.33.2")
    assert found["release"].startswith("those of Kubernetes 1.33.3, without ")
    failing = [rule["rule"] for rule in found["rules"] if rule["result"] == "does not hold"]
    assert failing == [
        "pods/mirror-references",
        "pods/status-extended-resource-claim",
        "nodes/owner-references",
        "podcertificaterequests/node",
        "podcertificaterequests/pod",
        "podcertificaterequests/service-account",
    ]
    assert code == 1
    assert older["counts"]["does not hold"] == 0


def test_our_webhook_in_audit_mode_holds_nothing(verified: Verified, verify: Verify) -> None:
    with ours(verified, "--mode", "audit"):
        code, found = verify(verified.bare, "--node", "n1")
    expected = expected_admission("does not hold")
    expected["nodes/config-source"] = "not applicable"
    assert held_by(found, "admission") == expected
    rules = by_rule(found)
    assert rules["nodes/labels"]["ours"] == "lets pass; asked directly: would refuse"
    assert rules["leases/namespace"]["ours"] == "not reached; asked directly: would refuse"
    assert code == 1


def test_what_the_plugin_holds_is_not_counted_as_ours(verified: Verified, verify: Verify) -> None:
    with ours(verified, "--rule-modes", "nodes/taints=off"):
        _, found = verify(verified.both, "--node", "n1")
    rules = by_rule(found)
    assert rules["nodes/taints"]["by"] == ["NodeRestriction plugin"]
    assert rules["nodes/taints"]["ours"] == "not reached; asked directly: lets pass"
    assert rules["nodes/labels"]["ours"] == "not reached; asked directly: refuses"


POLICY = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "node-isolation"},
    "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["", "coordination.k8s.io", "storage.k8s.io"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["nodes", "nodes/status", "leases", "csinodes"],
                },
                {
                    "apiGroups": [""],
                    "apiVersions": ["*"],
                    "operations": ["DELETE"],
                    "resources": ["pods"],
                },
            ]
        },
        "matchConditions": [
            {"name": "nodes", "expression": "'system:nodes' in request.userInfo.groups"}
        ],
        "validations": [
            {
                "expression": "request.resource.resource == 'pods' "
                "|| 'system:node:' + object.metadata.name == request.userInfo.username"
            },
            {
                "expression": "request.resource.resource != 'pods' "
                "|| 'system:node:' + oldObject.spec.nodeName == request.userInfo.username"
            },
            {
                "expression": "request.resource.resource != 'nodes' || oldObject == null "
                "|| object.spec.?taints == oldObject.spec.?taints"
            },
        ],
    },
}
BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": {"name": "node-isolation"},
    "spec": {"policyName": "node-isolation", "validationActions": ["Deny"]},
}
COVERED = (
    "nodes/own-name",
    "nodes/taints",
    "leases/own-name",
    "csinodes/own-name",
    "pods/delete-own",
)


def test_policies_by_hand_hold_what_they_cover(verified: Verified, verify: Verify) -> None:
    admin = verified.control_plane.admin
    admin.create(POLICIES, POLICY)
    admin.create(BINDINGS, BINDING)
    try:
        code, found = settled(
            lambda: verify(verified.bare, "--node", "n1"),
            lambda found: by_rule(found)["nodes/own-name"]["result"] == "holds",
        )
    finally:
        admin.delete(f"{BINDINGS}/node-isolation")
        admin.delete(f"{POLICIES}/node-isolation")
    expected = expected_admission("does not hold")
    expected["nodes/config-source"] = "not applicable"
    expected |= dict.fromkeys(COVERED, "policy node-isolation")
    assert held_by(found, "admission") == expected
    assert code == 1


def test_it_leaves_no_trace_but_dry_runs_reviews_and_refused_token_requests(
    verified: Verified, verify: Verify
) -> None:
    before, seen = verified.control_plane.revisions(), len(verified.events())
    for port in (verified.bare, verified.both):
        verify(port, "--node", "n1")
    after = verified.control_plane.revisions()
    changed = {
        key
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key) and not key.startswith(HEARTBEATS)
    }
    assert not changed
    events = [
        event
        for event in verified.events()[seen:]
        if event["user"]["username"] == "verifier" and event["verb"] not in ("get", "list")
    ]
    assert len(events) > 100
    for event in events:
        reference = event["objectRef"]
        if reference["resource"] in REVIEWS or "dryRun=All" in event["requestURI"]:
            continue
        assert (reference["resource"], reference["subresource"]) == ("serviceaccounts", "token")
        assert event["responseStatus"]["code"] in (400, 403)


def test_a_kubelets_credential_needs_no_right_to_impersonate(
    verified: Verified, verify: Verify
) -> None:
    code, found = verify(verified.both, user="system:node:n1", group="system:nodes")
    assert found["node"] == "n1"
    assert not found["impersonated"]
    rules = by_rule(found)
    assert rules["nodes/taints"]["by"] == ["NodeRestriction plugin"]
    # It cannot be another user, nor see pods elsewhere, and says so.
    assert rules["identity/node-name"]["result"] == "unknown"
    assert rules["pods/delete-own"]["result"] == "unknown"
    assert any("pods is forbidden" in note for note in found["notes"])
    assert code == 2


def test_who_may_not_impersonate_is_told_which_right_is_missing(
    verified: Verified, verify: Verify
) -> None:
    admin = verified.control_plane.admin
    rules = [
        {"apiGroups": [""], "resources": ["*"], "verbs": ["get", "list"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["*"], "verbs": ["create"]},
    ]
    role = {**cluster_role(), "metadata": {"name": "reader"}, "rules": rules}
    user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"}
    binding = cluster_role_binding(user)
    binding["metadata"]["name"] = binding["roleRef"]["name"] = "reader"
    admin.create(f"{RBAC}/clusterroles", role)
    admin.create(f"{RBAC}/clusterrolebindings", binding)
    code, found = settled(
        lambda: verify(verified.both, "--node", "n1", user="reader", group=""),
        lambda found: by_rule(found)["read/secrets"]["result"] == "holds",
    )
    assert "impersonate users/system:node:n1" in found["notes"][0]
    assert "impersonate groups/system:nodes" in found["notes"][0]
    assert {rule["result"] for rule in found["rules"] if rule["half"] == "admission"} == {
        "unknown", "not applicable"
    }  # fmt: skip
    assert set(held_by(found, "authorizer").values()) == {
        "Node authorizer", "no authorizer allows it", "unknown"
    }  # fmt: skip
    assert code == 2

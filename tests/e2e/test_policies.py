"""The policies on a real API server, with no process of ours running."""

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.policy.releases import Release
from noderestrict.policy.rules.review import NODE_NAME, OBJECT
from noderestrict.policy.settings import Settings
from noderestrict.render.conditions import NODE_USERS
from noderestrict.render.policies import Options, policies
from noderestrict.render.registration import (
    RESOURCES,
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.cel import build, judge
from tests.e2e.conftest import USER, let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import APIError, Client, ControlPlane
from tests.e2e.test_hollow_nodes import DEPLOYMENTS, deployment, ready_nodes, scale, until
from tests.e2e.test_registration import (
    LEASES,
    NODES,
    PODS,
    RBAC,
    WOULD,
    Registered,
    Sender,
    calls,
    configured,
    hostile,
    lease,
    live,
    reviews,
    server,
    start,
)
from tests.render.policy_reviews import UNCOVERED, conformance, refusing_rules
from tests.render.test_policies import QUANTITIES

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests" / "policies"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = f"{POLICIES.removesuffix('policies')}policybindings"
NAMES = {one["metadata"]["name"] for one in policies()}
LABELS: Object = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
#: How a policy's warning and an API server's refusal begin.
REFUSED = re.compile(r"ValidatingAdmissionPolicy '(noderestrict-[a-z-]+)'.*?: ([a-z-]+/[a-z-]+): ")
SUITES = {
    "admission/generated.jsonl": 36,
    "captured/captured.jsonl": 36,
    "versions/admission-1.29.jsonl.gz": 29,
    "versions/admission-1.35.jsonl.gz": 35,
}


class Policed(Registered):
    """A cluster whose nodes may do everything, but for the policies."""

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        kubeconfig = self.folder / "admin"
        kubeconfig.write_text(json.dumps(self.admin.kubeconfig()))
        code, output = self.control_plane.kubectl(kubeconfig, *arguments, stdin=stdin)
        assert code == 0, output
        return output

    def versions(self) -> dict[str, tuple[str, ...]]:
        """Return when each policy and its binding were written last."""
        found: dict[str, tuple[str, ...]] = {}
        for path in (POLICIES, BINDINGS):
            for one in self.admin.get(path)["items"]:
                meta = one["metadata"]
                found[meta["name"]] = (*found.get(meta["name"], ()), meta["resourceVersion"])
        return found

    @contextlib.contextmanager
    def policies(self, mode: str = "deny") -> Iterator[None]:
        """Apply the policies, and take them away at the end."""
        text = yaml.safe_dump_all(policies(Options(mode=mode)))
        self.kubectl("apply", "-f", "-", stdin=text)
        try:
            self.until_judged()
            yield
        finally:
            self.kubectl("delete", "-f", "-", stdin=text)
            self.until_free()

    def judged(self) -> set[bool]:
        """Tell of the policies of two resources whether they are in force."""
        probe = self.control_plane.node("probe")
        acts: list[Callable[[], object]] = [
            lambda: probe.create(f"{LEASES}?dryRun=All", lease("somebody-else")),
            lambda: probe.create(f"{NODES}?dryRun=All", {"metadata": {"name": "somebody-else"}}),
        ]
        return {"ValidatingAdmissionPolicy" in said(probe, act) for act in acts}

    def until_judged(self) -> None:
        eventually(lambda: self.judged() == {True})
        # An API server takes over what changed once a second.
        time.sleep(1.5)

    def until_free(self) -> None:
        eventually(lambda: self.judged() == {False})


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def said(client: Client, act: Callable[[], object]) -> str:
    """Return warnings and refusal of a request."""
    try:
        act()
    except APIError as error:
        return str(error)
    return " ".join(client.warnings)


@pytest.fixture(scope="module")
def policed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policed]:
    folder = tmp_path_factory.mktemp("policies")
    control_plane = ControlPlane({"disable-admission-plugins": "NodeRestriction"})
    try:
        control_plane.needs("kubectl")
        admin = control_plane.admin
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
        let_nodes_do_all(admin)
        namespace_ready(admin)
        for name in ("kube-node-lease", "ns", "other"):
            with contextlib.suppress(APIError):
                admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
        for name in ("default", "ns", "other"):
            with contextlib.suppress(APIError):
                admin.create(f"/api/v1/namespaces/{name}/serviceaccounts",
                             {"metadata": {"name": "default"}})  # fmt: skip
        (folder / "kubeconfig").write_text(json.dumps(control_plane.user(USER).kubeconfig()))
        (folder / "enforcing").mkdir()
        with server(control_plane, folder, "enforcing", "--mode", "warn") as warning:
            yield Policed(control_plane, admin, folder, warning)
    finally:
        control_plane.stop()


def test_applied_from_the_manifests_they_hold_and_can_be_applied_again_and_removed(
    policed: Policed,
) -> None:
    policed.kubectl("apply", "-k", str(MANIFESTS))
    policed.until_judged()
    node = start(policed, "old")
    for error in hostile(policed, node, "old"):
        assert REFUSED.search(str(error)) or error.code == 409, error
    for number in range(3):
        live(node, "old", number)
    node.delete(f"{PODS}/on-old")
    before = policed.versions()
    policed.kubectl("apply", "-k", str(MANIFESTS))
    # Beside everything else that can be installed.
    overlay = ROOT / "manifests" / "overlays" / "self-signed" / "install"
    mirror = ROOT / "manifests" / "components" / "mirror-pods" / "policy.yaml"
    policed.kubectl("apply", "-k", str(overlay))
    policed.kubectl("apply", "-f", str(mirror))
    after = policed.versions()
    assert set(after) - set(before) == {"noderestrict-mirror-pods"}
    assert {name: after[name] for name in before} == before
    policed.kubectl("delete", "-k", str(MANIFESTS))
    left = {one["metadata"]["name"] for one in policed.admin.get(POLICIES)["items"]}
    assert left == {"noderestrict-mirror-pods"}
    policed.until_free()
    assert "taints" in str(node.patch(f"{NODES}/old", {"spec": {"taints": [
        {"key": "a", "effect": "NoExecute"}]}}))  # fmt: skip
    policed.kubectl("delete", "-f", str(mirror))


def test_no_expression_warns_in_the_type_checker(policed: Policed) -> None:
    policed.control_plane.needs("kube-controller-manager")
    policed.control_plane.start_controllers("validatingadmissionpolicy-status-controller")
    try:
        with policed.policies():

            def checked() -> list[Object]:
                items = policed.admin.get(POLICIES)["items"]
                return [
                    one["status"]["typeChecking"]
                    for one in items
                    if one.get("status", {}).get("observedGeneration")
                    == one["metadata"]["generation"]
                ]

            eventually(lambda: len(checked()) == len(NAMES))
            assert [one for one in checked() if one] == []
    finally:
        policed.control_plane.stop_process("kube-controller-manager")


class Comparing(Sender):
    """Compares what policies and webhook warn of, which both let everything pass."""

    def __init__(self, registered: Registered) -> None:
        super().__init__(registered)
        self.counts: Counter[str] = Counter()
        self.different: list[tuple[Object, list[str], list[str]]] = []

    def passed(self, request: Object, warnings: list[str]) -> None:
        ours = [
            found[1]
            for one in warnings
            if WOULD in one and (found := re.search(r"this \(([a-z/-]+)\)", one))
        ]
        theirs = [found[2] for one in warnings if (found := REFUSED.search(one))]
        self.counts["refused" if theirs else "allowed"] += 1
        if [one for one in ours if one not in UNCOVERED] != theirs:
            self.different.append((request, ours, theirs))


def test_captured_requests_sent_again_are_judged_as_by_the_rules(policed: Policed) -> None:
    configuration = webhook_configuration(policed.client_config(policed.enforcing))
    for webhook in configuration["webhooks"]:
        webhook["matchConditions"] = [NODE_USERS]
    judged = {one for some in RESOURCES.values() for one in some}
    with configured(policed, configuration), policed.policies("warn"):
        probe = policed.control_plane.node("probe")
        eventually(lambda: WOULD in said(
            probe, lambda: probe.create(f"{LEASES}?dryRun=All", lease("another"))))  # fmt: skip
        sender, asked = Comparing(policed), calls(policed.enforcing)
        outcomes = Counter(sender.send(request) for request in reviews(judged))
        asked = calls(policed.enforcing) - asked
    print(f"{dict(outcomes)}, {dict(sender.counts)}; the webhook judged {asked}")
    assert sender.different == []
    assert sender.counts["refused"] > 100
    assert sender.counts["allowed"] > 100


@pytest.fixture(scope="module")
def program() -> Path:
    return build()


@pytest.mark.parametrize("suite", SUITES)
def test_the_api_servers_library_judges_every_review_as_the_rules(
    program: Path, suite: str
) -> None:
    release = Release(SUITES[suite])
    default = Settings.for_version(release.minor, release=release)
    by_settings: dict[str, list[tuple[str, Object, list[str]]]] = {}
    settings = {}
    for case, own, listers in conformance(suite, default):
        request = json.loads(case.review).get("request") or {}
        rules = refusing_rules(case.review, own, listers)
        if request.get("resource") and OBJECT.id not in rules:
            settings[repr(own)] = own
            by_settings.setdefault(repr(own), []).append((case.id, request, rules))
    counts: Counter[str] = Counter()
    different = {}
    for key, cases in by_settings.items():
        rendered = policies(Options(settings[key]))
        order = _rules_in_order(rendered)
        answers = judge(program, rendered, (request for _, request, _ in cases))
        for (id_, _, rules), found in zip(cases, answers, strict=True):
            refusing = [
                order[one.policy][int(each.name)]
                for one in found
                if all(condition.result == "true" for condition in one.conditions)
                for each in one.validations
                if each.result != "true"
            ]
            counts["refused" if refusing else "allowed"] += 1
            if rules == [NODE_NAME.id]:
                # Policies say all that they have to say, of their own resources only.
                refusing = refusing[:1] or ([] if found else rules)
            if refusing != rules:
                different[id_] = (rules, refusing)
    print(dict(counts))
    assert {id_: one for id_, one in different.items() if id_ not in QUANTITIES} == {}
    assert counts["refused"] > 100
    assert counts["allowed"] > 100


def _rules_in_order(rendered: Sequence[Object]) -> dict[str, list[str]]:
    """Return the rule of each validation, by policy."""
    return {
        one["metadata"]["name"]: [
            each["message"].partition(":")[0] for each in one["spec"]["validations"]
        ]
        for one in rendered
        if one["kind"] == "ValidatingAdmissionPolicy"
    }


def denials(admin: Client) -> list[str]:
    """Return the metrics of requests that our policies denied."""
    _, exposition = admin.send("GET", "/metrics")
    return [
        line
        for line in exposition.decode().splitlines()
        if line.startswith("apiserver_validating_admission_policy_check_total")
        and 'policy="noderestrict-' in line
        and 'enforcement_action="allow"' not in line
    ]


def test_real_kubelets_live_undisturbed(tmp_path: Path) -> None:
    nodes = ("hollow-1", "hollow-2")
    control_plane = ControlPlane({"disable-admission-plugins": "NodeRestriction"})
    try:
        control_plane.needs("kubemark", "kube-controller-manager", "kube-scheduler", "kubectl")
        admin = control_plane.admin
        namespace_ready(admin)
        (tmp_path / "admin").write_text(json.dumps(admin.kubeconfig()))
        code, output = control_plane.kubectl(tmp_path / "admin", "apply", "-k", str(MANIFESTS))
        assert code == 0, output
        control_plane.start_controllers("*")
        control_plane.start_scheduler()
        for name in nodes:
            control_plane.start_hollow_node(name)
        until("nodes are ready", lambda: ready_nodes(control_plane) == set(nodes))
        admin.create(DEPLOYMENTS, deployment(4))
        for replicas in (4, 2, 6):
            scale(control_plane, replicas)
        assert denials(admin) == []
        thief = control_plane.node(nodes[0])
        with pytest.raises(APIError, match="nodes/labels"):
            thief.patch(f"{NODES}/{nodes[0]}", LABELS)
        assert denials(admin) != []
        admin.delete(f"{DEPLOYMENTS}/web")
        assert ready_nodes(control_plane) == set(nodes)
    finally:
        control_plane.stop()

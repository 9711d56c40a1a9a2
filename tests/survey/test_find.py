"""``agents find`` ranks what a stolen node gets with the agents on it."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noderestrict.cli import main
from noderestrict.survey.findings import Findings
from tests.survey.clusters import FILLING, Object, daemon_set, grants, owned_by, pod, written

ROOT = Path(__file__).parents[2]
CNI = "kube-system/cni"
READ_NODES = [([""], ["nodes"], ["get", "list", "watch"])]
PATCH_NODES = [([""], ["nodes", "nodes/status"], ["patch"])]
READ_SECRETS = [([""], ["secrets"], ["get"])]


class Found:
    """What the command prints as JSON, and its exit code."""

    def __init__(self, code: int, out: str) -> None:
        self.code = code
        self.all = msgspec.json.decode(out, type=Findings)
        self.agents = {agent.service_account: agent for agent in self.all.agents}


@pytest.fixture
def find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*objects: Object, fill: bool = True, arguments: tuple[str, ...] = ()) -> Found:
        state = written(tmp_path, *objects, *(FILLING if fill else ()))
        code = main(["agents", "find", "--state", state, "--output", "json", *arguments])
        return Found(code, capsys.readouterr().out)

    return run


def test_an_agent_that_may_patch_all_nodes_harms_others(find: Any) -> None:
    found = find(daemon_set("cni", "cni"), *grants(CNI, PATCH_NODES))
    agent = found.agents[CNI]
    assert (found.code, agent.severity, agent.nodes) == (1, "high", 7)
    assert [right.right for right in agent.rights] == ["nodes/write", "nodes/status"]
    assert agent.rights[0].from_ == ("ClusterRoleBinding cni → ClusterRole cni",)
    assert agent.daemon_sets == ("kube-system/cni",)


def test_an_agent_without_rights_of_the_table_is_listed_and_fine(find: Any) -> None:
    found = find(daemon_set("cni", "cni"), *grants(CNI, READ_NODES))
    assert (found.code, found.agents[CNI].severity) == (0, "none")
    assert found.agents[CNI].reads[0].resource == "nodes"


def test_the_worst_agent_comes_first(find: Any) -> None:
    found = find(
        daemon_set("a", "a"),
        daemon_set("b", "b"),
        daemon_set("c", "c"),
        *grants("kube-system/b", PATCH_NODES),
        *grants("kube-system/c", READ_SECRETS),
    )
    assert [agent.service_account for agent in found.all.agents] == [
        "kube-system/c", "kube-system/b", "kube-system/a",
    ]  # fmt: skip


def test_a_daemon_set_that_names_no_account_runs_as_the_default_one(find: Any) -> None:
    found = find(daemon_set("cni", None), *grants("kube-system/default", READ_SECRETS))
    assert found.agents["kube-system/default"].severity == "critical"


def test_a_right_that_all_service_accounts_have_counts(find: Any) -> None:
    role, binding = grants("x/all", READ_SECRETS)
    binding["subjects"] = [{"kind": "Group", "name": "system:serviceaccounts:kube-system"}]
    found = find(daemon_set("cni", "cni"), role, binding)
    assert found.agents[CNI].severity == "critical"


def test_pods_tell_the_nodes_and_the_account_that_a_daemon_set_had_before(find: Any) -> None:
    found = find(
        daemon_set("cni", "new"),
        pod("cni-1", "n1", "old", owned_by("cni")),
        pod("cni-2", "n2", "new", owned_by("cni")),
        pod("cni-3", "n3", "new", owned_by("cni")),
        pod("web", "n1", "web", owned_by("web", "ReplicaSet")),
        pod("mine", "n1", "mine", owned_by("cni", controller=False)),
        *grants("kube-system/old", READ_SECRETS),
    )
    assert set(found.agents) == {"kube-system/old", "kube-system/new"}
    assert found.agents["kube-system/old"].nodes == 1
    assert found.agents["kube-system/new"].nodes == 2
    assert found.agents["kube-system/old"].severity == "critical"


@pytest.mark.parametrize(
    ("spec", "kubeconfigs"),
    [
        (
            {"volumes": [{"name": "k", "hostPath": {"path": "/etc/kubernetes/admin.conf"}}]},
            ["/etc/kubernetes/admin.conf"],
        ),
        (
            {"containers": [{"name": "c", "command": ["x", "--kubeconfig=/var/k"]}]},
            ["/var/k"],
        ),
        ({"containers": [{"name": "c", "args": ["--kubeconfig", "/var/k"]}]}, ["/var/k"]),
        (
            {"containers": [{"name": "c", "env": [{"name": "KUBECONFIG", "value": "/var/k"}]}]},
            ["/var/k"],
        ),
        ({"volumes": [{"name": "k", "hostPath": {"path": "/etc/kubernetes/pki"}}]}, []),
        ({"volumes": [{"name": "k", "configMap": {"name": "kubeconfig"}}]}, []),
    ],
)
def test_static_pods_that_see_a_kubeconfig_are_listed_apart(
    find: Any, spec: Object, kubeconfigs: list[str]
) -> None:
    pods = [pod(f"vip-{node}", node, "", None, **spec) for node in ("n1", "n2")]
    for one in pods:
        one["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "0"}
    normal = pod("normal", "n1", "normal", None, **spec)
    found = find(*pods, normal, daemon_set("cni", "cni"))
    listed = [(one.pod, one.nodes, one.kubeconfigs) for one in found.all.static_pods]
    wanted = [("kube-system/vip", ("n1", "n2"), tuple(kubeconfigs))] if kubeconfigs else []
    assert listed == wanted


POLICY = """
agents:
- name: cni
  users: [{serviceAccount: kube-system/cni}]
  write:
  - {resources: [nodes, nodes/status], operations: [UPDATE], relation: own-node}
"""


def policy(tmp_path: Path, text: str) -> tuple[str, str]:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return "--agents", str(file)


def test_what_a_policy_holds_to_the_node_no_longer_counts(find: Any, tmp_path: Path) -> None:
    objects = [daemon_set("cni", "cni"), *grants(CNI, [*PATCH_NODES, ([""], ["pods"], ["delete"])])]
    assert find(*objects).code == 1
    found = find(*objects, arguments=policy(tmp_path, POLICY))
    agent = found.agents[CNI]
    assert (found.code, agent.severity, agent.held_by) == (0, "none", ("policy cni",))
    assert {right.held_by for right in agent.rights} == {"policy cni"}


@pytest.mark.parametrize(
    ("change", "open_"),
    [
        (("relation: own-node", "relation: any"), {"nodes/write", "nodes/status"}),
        (("  write:", "  unnamedWrites: allow\n  write:"), {"pods/delete"}),
        (
            ("  write:", "  mode: audit\n  write:"),
            {"nodes/write", "nodes/status", "pods/delete", "secrets/read"},
        ),
        (("  write:", "  read: []\n  write:"), set()),
    ],
)
def test_what_a_policy_leaves_open_counts(
    find: Any, tmp_path: Path, change: tuple[str, str], open_: set[str]
) -> None:
    rules = [*PATCH_NODES, ([""], ["pods"], ["delete"]), ([""], ["secrets"], ["get"])]
    text = POLICY.replace(*change)
    found = find(daemon_set("cni", "cni"), *grants(CNI, rules), arguments=policy(tmp_path, text))
    # Without entries for reads, these are not held.
    reads = set() if "read: []" in text else {"secrets/read"}
    assert {right.right for right in found.agents[CNI].open} == open_ | reads


@pytest.mark.parametrize(
    ("rules", "through"),
    [
        (
            (["certificates.k8s.io"], ["certificatesigningrequests/nodeclient"], ["create"]),
            ("certificates.k8s.io", "certificatesigningrequests", "CREATE"),
        ),
        (
            (["certificates.k8s.io"], ["signers"], ["approve"]),
            ("certificates.k8s.io", "certificatesigningrequests/approval", "UPDATE"),
        ),
        (
            (["rbac.authorization.k8s.io"], ["clusterroles"], ["bind"]),
            ("rbac.authorization.k8s.io", "clusterrolebindings", "CREATE"),
        ),
    ],
)
def test_a_right_of_no_api_verb_is_held_as_the_write_that_uses_it(
    find: Any, tmp_path: Path, rules: Any, through: tuple[str, str, str]
) -> None:
    objects = [daemon_set("cni", "cni"), *grants(CNI, [rules])]
    assert find(*objects, arguments=policy(tmp_path, POLICY)).code == 0
    group, resource, operation = through
    entry = f"  - {{apiGroups: [{group}], resources: [{resource}], operations: [{operation}], "
    found = find(*objects, arguments=policy(tmp_path, f"{POLICY}{entry}relation: any}}\n"))
    assert found.code == 1


@pytest.mark.parametrize(
    "rules",
    [
        [(["*"], ["*"], ["*"])],
        [([""], ["users"], ["impersonate"])],
        # An API server asks no webhook about what turns webhooks on.
        [(["admissionregistration.k8s.io"], ["validatingwebhookconfigurations"], ["update"])],
        [(["admissionregistration.k8s.io"], ["mutatingadmissionpolicies"], ["patch"])],
    ],
)
def test_no_policy_holds_what_admission_never_sees(
    find: Any, tmp_path: Path, rules: list[tuple[list[str], list[str], list[str]]]
) -> None:
    found = find(daemon_set("cni", "cni"), *grants(CNI, rules), arguments=policy(tmp_path, POLICY))
    assert found.agents[CNI].severity == "critical"


def test_a_policy_of_another_account_holds_nothing(find: Any, tmp_path: Path) -> None:
    found = find(
        daemon_set("cni", "cni", "other"),
        *grants("other/cni", PATCH_NODES),
        arguments=policy(tmp_path, POLICY),
    )
    assert found.agents["other/cni"].severity == "high"


IMPERSONATION = [
    (["authentication.k8s.io"], ["nodes"], ["impersonate:associated-node"]),
    ([""], ["nodes/status"], ["impersonate-on:associated-node:patch"]),
]


def test_an_agent_that_may_be_its_own_node_says_so(find: Any) -> None:
    found = find(daemon_set("cni", "cni"), *grants(CNI, IMPERSONATION))
    agent = found.agents[CNI]
    assert (found.code, agent.severity, agent.held_by) == (0, "none", ("impersonation",))
    assert agent.impersonates == ("patch nodes/status",)


def test_an_older_server_lets_no_agent_be_its_own_node(find: Any) -> None:
    found = find(
        daemon_set("cni", "cni"),
        *grants(CNI, IMPERSONATION),
        arguments=("--kubernetes-version", "1.35"),
    )
    assert (found.agents[CNI].held_by, found.agents[CNI].impersonates) == ((), ())


def test_an_agent_that_may_be_its_own_node_but_kept_its_old_rights_still_harms_others(
    find: Any,
) -> None:
    found = find(daemon_set("cni", "cni"), *grants(CNI, [*IMPERSONATION, *PATCH_NODES]))
    assert (found.code, found.agents[CNI].severity) == (1, "high")


def test_impersonation_is_checked_for_all_node_names(find: Any) -> None:
    found = find(daemon_set("cni", "cni"), *grants(CNI, IMPERSONATION, names=["n1"]))
    assert not found.agents[CNI].impersonates


@pytest.mark.parametrize(
    ("rules", "version", "remedy"),
    [
        (PATCH_NODES, "1.36", "constrained impersonation would do: "),
        (PATCH_NODES, None, "constrained impersonation would do, from Kubernetes 1.36 on: "),
        (PATCH_NODES, "1.35", "a policy: Kubernetes 1.35 has no constrained impersonation"),
        (
            [([""], ["pods"], ["patch"])],
            "1.36",
            "a policy: a kubelet may not patch pods",
        ),
        (
            [*PATCH_NODES, (["x.example.com"], ["things"], ["update"])],
            "1.36",
            "a policy: a kubelet may not update things.x.example.com",
        ),
        ([([""], ["secrets"], ["list"])], "1.36", "a policy: a kubelet may not list secrets, but "),
        ([(["*"], ["*"], ["*"])], "1.36", "narrow its roles first"),
    ],
)
def test_the_remedy_is_impersonation_where_a_kubelet_has_all_of_the_rights(
    find: Any, rules: Any, version: str | None, remedy: str
) -> None:
    arguments = ("--kubernetes-version", version) if version else ()
    found = find(daemon_set("cni", "cni"), *grants(CNI, rules), arguments=arguments)
    assert found.agents[CNI].remedy.startswith(remedy)


def test_a_lease_of_the_agents_own_is_none_of_a_kubelet(find: Any) -> None:
    rules = [(["coordination.k8s.io"], ["leases"], ["update"])]
    objects = [daemon_set("cni", "cni"), *grants(CNI, PATCH_NODES)]
    role, binding = grants(CNI, rules, namespace="kube-system")
    found = find(*objects, role, binding)
    assert "may not update leases.coordination.k8s.io in namespace kube-system" in (
        found.agents[CNI].remedy
    )


def test_what_the_files_do_not_hold_is_said(find: Any) -> None:
    found = find(daemon_set("cni", "cni"), fill=False)
    assert found.code == 2
    assert [one.what for one in found.all.not_seen] == [
        "pods", "clusterroles", "clusterrolebindings", "roles", "rolebindings",
    ]  # fmt: skip


def test_a_role_that_is_gone_is_named(find: Any) -> None:
    _, binding = grants(CNI, [])
    found = find(daemon_set("cni", "cni"), binding)
    assert found.all.dangling == ("ClusterRoleBinding cni → ClusterRole cni",)


def test_a_folder_of_files_is_read_and_objects_that_are_twice_in_it_count_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [daemon_set("cni", "cni"), *grants(CNI, PATCH_NODES)]
    (tmp_path / "in").mkdir()
    written(tmp_path, *objects, *FILLING)
    written(tmp_path / "in", *objects)
    (tmp_path / "README.md").write_text("no objects")
    assert main(["agents", "find", "--state", str(tmp_path), "--output", "json"]) == 1
    found = Found(1, capsys.readouterr().out)
    assert len(found.agents[CNI].rights[0].from_) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--state", "gone.json"], "--state gone.json: No such file or directory"),
        (["--state", "empty"], "--state empty: the folder holds no .json, .jsonl, .yaml, .yml"),
        (["--state", "bad.json"], "--state bad.json:1: not JSON"),
        (["--state", "ok.json", "--agents", "gone.yaml"], "--agents gone.yaml: No such file"),
        (["--state", "ok.json", "--agents", "bad.json"], "--agents bad.json: "),
        (["--kubernetes-version", "1.36"], "--kubernetes-version is for --state"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("{")
    written(tmp_path, *FILLING, name="ok.json")
    assert main(["agents", "find", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"noderestrict agents: {message}")
    assert err.count("\n") == 1


def run_on_example(output: str, capsys: pytest.CaptureFixture[str]) -> str:
    state = str(ROOT / "examples" / "agents-state.json")
    assert main(["agents", "find", "--state", state, "--output", output]) == 1
    return capsys.readouterr().out


def test_the_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = run_on_example("table", capsys)
    assert max(map(len, out.splitlines())) <= 80


def test_the_json_is_as_its_schema_says(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads((ROOT / "docs/reference/agents-find.schema.json").read_text())
    value = json.loads(run_on_example("json", capsys))

    def check(given: Any, wanted: Any) -> None:
        if "$ref" in wanted:
            wanted = schema["$defs"][wanted["$ref"].rpartition("/")[2]]
        if wanted["type"] == "object":
            assert set(wanted["required"]) <= set(given) <= set(wanted["properties"])
            for key, one in given.items():
                check(one, wanted["properties"][key])
        elif wanted["type"] == "array":
            for one in given:
                check(one, wanted["items"])
        else:
            assert isinstance(given, {"string": str, "integer": int}[wanted["type"]])

    check(value, schema)
    assert value["agents"][0]["rights"][0]["from"]


def test_the_page_loads_nothing_and_shows_names_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = daemon_set("<script>alert(1)</script>", "cni")
    state = written(tmp_path, hostile, *grants(CNI, PATCH_NODES), *FILLING)
    assert main(["agents", "find", "--state", state, "--output", "html"]) == 1
    out = capsys.readouterr().out
    assert "default-src 'none'" in out
    assert "<script" not in out
    assert "&lt;script&gt;" in out

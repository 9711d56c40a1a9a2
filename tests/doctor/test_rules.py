"""Each rule group is tried out, and one that does not hold is told with what mends it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from noderestrict.cluster.access import Impersonated
from noderestrict.cluster.judge import connected
from noderestrict.doctor.checks import rules
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.findings import Finding, exit_code
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import NodeKeys
from noderestrict.policy.releases import parse_release
from noderestrict.policy.table import STRICT_RULE_IDS
from noderestrict.probes.table import expected_rules
from noderestrict.render.workload import deployment
from noderestrict.telemetry.metrics import Metrics
from tests.verify.cluster import APIServer, running

OURS = 'admission webhook "x.noderestrict.io" denied the request: {}'.format
RULES = expected_rules()
GROUPS = list(dict.fromkeys(rule.partition("/")[0] for rule in RULES))
#: Whatever our rules say, the API server itself refuses this one.
API_SERVERS_OWN = "request"
#: While the resource is served, its gate is on: there is nothing to refuse.
ON = "podcertificaterequests/gate"
ALWAYS_ON = (ON, "request/object", "identity/node-name")
SPACE = "/{}/v1/namespaces/noderestrict"
AUDIT = Options(expected_mode="audit")


async def examined(
    server: APIServer, folder: Path, options: Options | None = None
) -> dict[str, Finding]:
    async with running(server, folder) as kubeconfig, connected(kubeconfig, None) as connection:
        cluster = Cluster(connection, options or Options())
        found = [one async for one in rules.CHECK.check(cluster)]
    assert all(one.remedy for one in found if one.status != "pass")
    return {one.message.partition(":")[0]: one for one in found}


def statuses(found: dict[str, Finding]) -> set[str]:
    return {one.status for one in found.values()}


class Installed(APIServer):
    """A cluster where our webhook denies requests, and whose servers run as Deployments."""

    def __init__(self) -> None:
        super().__init__()
        self.says = OURS
        for plural in ("deployments", "daemonsets"):
            self.objects[f"{SPACE.format('apis/apps')}/{plural}"] = {"items": []}
        #: Metrics, by path.
        self.exposed: dict[str, bytes] = {}

    async def answer(self, request: web.Request) -> web.Response:
        if (text := self.exposed.get(request.path)) is not None:
            return web.Response(body=text)
        return await super().answer(request)


async def test_each_group_of_rules_that_hold_passes_with_who_holds_it(tmp_path: Path) -> None:
    found = await examined(Installed(), tmp_path)
    assert list(found) == GROUPS
    assert statuses(found) == {"pass"}
    assert found["nodes"].message.startswith("nodes: holds by noderestrict webhook (")
    assert found["request"].message == "request: holds by API server (1 of 1 rules)"


async def test_what_the_plugin_holds_is_not_counted_as_ours(tmp_path: Path) -> None:
    found = await examined(APIServer(), tmp_path)
    assert "holds by NodeRestriction plugin (" in found["leases"].message


async def test_as_an_impersonated_user_no_rule_is_tried_out(tmp_path: Path) -> None:
    server = Installed()
    async with (
        running(server, tmp_path) as kubeconfig,
        connected(kubeconfig, None, (), Impersonated("eve")) as connection,
    ):
        (finding,) = [one async for one in rules.CHECK.check(Cluster(connection))]
    assert finding.status == "unknown"
    assert "--as eve, or the kubeconfig, impersonates no node" in finding.message
    assert server.writes == []


@pytest.mark.parametrize("rule", [one for one in RULES if one not in ALWAYS_ON])
async def test_a_rule_that_is_off_fails_its_group_alone(tmp_path: Path, rule: str) -> None:
    server = Installed()
    server.skipped = frozenset([rule])
    found = await examined(server, tmp_path)
    failing = {group: one for group, one in found.items() if one.status != "pass"}
    group = rule.partition("/")[0]
    assert list(failing) == [group]
    assert failing[group].status == "fail"
    assert rule in failing[group].message
    show, *mend = failing[group].command.splitlines()
    assert show == "noderestrict verify --node=n1"
    assert mend
    assert "registration" in mend[-1]


async def test_strict_rules_must_hold_where_they_are_expected(tmp_path: Path) -> None:
    strict = Extra.of(("events/about-own",))
    found = await examined(Installed(), tmp_path, Options(extra=strict))
    assert {group for group, one in found.items() if one.status == "fail"} == {"events"}
    show, render, *_ = found["events"].command.splitlines()
    assert show == "noderestrict verify --node=n1 --strict-rules=events/about-own"
    assert render == "noderestrict render manifests --strict-rules=events/about-own"


async def test_each_strict_rule_that_is_expected_but_off_fails_its_group(tmp_path: Path) -> None:
    every = Extra.of(STRICT_RULE_IDS, forbidden_labels=NodeKeys({"*": ("example.com/pool",)}))
    rules = expected_rules(every.rules)
    found = await examined(Installed(), tmp_path, Options(extra=every))
    assert set(found) == {rule.partition("/")[0] for rule in rules}
    for rule in STRICT_RULE_IDS:
        group = found[rule.partition("/")[0]]
        assert group.status == "fail"
        assert rule in group.message
        assert "--strict-rules=" in group.command


async def test_nothing_holds_where_nobody_denies_anything(tmp_path: Path) -> None:
    server = Installed()
    server.enforces = False
    found = await examined(server, tmp_path)
    assert {group for group, one in found.items() if one.status == "pass"} == {API_SERVERS_OWN}
    assert exit_code(found.values()) == 1


async def test_in_audit_mode_nothing_is_to_be_denied(tmp_path: Path) -> None:
    server = Installed()
    server.enforces = False
    found = await examined(server, tmp_path, AUDIT)
    assert list(found) == GROUPS
    assert statuses(found) == {"pass"}
    assert "as in mode audit" in found["nodes"].message


async def test_a_webhook_that_denies_is_not_in_audit_mode(tmp_path: Path) -> None:
    found = await examined(Installed(), tmp_path, AUDIT)
    denying = {group for group, one in found.items() if one.status == "fail"}
    assert denying == {*GROUPS} - {API_SERVERS_OWN}
    assert "other than in mode audit: leases/namespace" in found["leases"].message
    # The plugin may deny what it likes.
    assert statuses(await examined(APIServer(), tmp_path, AUDIT)) == {"pass"}


@pytest.mark.parametrize("options", [Options(), AUDIT], ids=["enforce", "audit"])
async def test_what_refuses_honest_requests_fails_in_every_mode(
    tmp_path: Path, options: Options
) -> None:
    server = changing(lambda path: "/leases" in path, 403, OURS("everything"))
    found = await examined(server, tmp_path, options)
    assert found["leases"].status == "fail"
    assert "must pass, but is refused (noderestrict webhook)" in found["leases"].message


async def test_a_webhook_that_does_not_answer_fails_its_groups(tmp_path: Path) -> None:
    failing = 'failed calling webhook "nodes.noderestrict.io": refused'
    found = await examined(changing(lambda path: "/nodes/" in path, 500, failing), tmp_path)
    bad = found["the webhook did not answer"]
    assert (bad.status, bad.command.split()[:4]) == (
        "fail", ["kubectl", "-n", "noderestrict", "logs"],
    )  # fmt: skip
    assert found["leases"].status == "pass"


async def test_a_webhook_that_answers_nothing_is_told_once(tmp_path: Path) -> None:
    failing = 'failed calling webhook "leases.noderestrict.io": refused'
    server = changing(lambda _: True, 500, failing)
    ((_, bad),) = (await examined(server, tmp_path)).items()
    assert bad.status == "fail"
    assert len(server.writes) == 1


async def test_another_refusal_is_unknown(tmp_path: Path) -> None:
    server = changing(lambda path: "/leases" in path, 403, "x is forbidden: quota")
    found = await examined(server, tmp_path)
    assert found["leases"].status == "unknown"
    assert found["leases"].command.startswith("noderestrict verify --node=n1")
    assert exit_code(found.values()) == 2


async def test_what_the_api_server_does_not_serve_is_warned_of(tmp_path: Path) -> None:
    server = Installed()
    server.objects["/apis/resource.k8s.io/v1"] = {"resources": []}
    found = await examined(server, tmp_path)
    assert found["resourceslices"].status == "warn"
    assert "not applicable: resourceslices/own-node-name" in found["resourceslices"].message


def runs(server: Installed, *flags: str, exposed: bytes | None = None) -> None:
    """Let a Deployment serve with flags, and a pod of it expose metrics."""
    value = deployment(flags)
    server.objects[f"{SPACE.format('apis/apps')}/deployments"] = {"items": [value]}
    pods: list[Any] = []
    if exposed is not None:
        pod = {"metadata": {"name": "a"}, "spec": value["spec"]["template"]["spec"],
               "status": {"phase": "Running"}}  # fmt: skip
        pods.append(pod)
        server.exposed["/api/v1/namespaces/noderestrict/pods/a:9090/proxy/metrics"] = exposed
    server.objects[f"{SPACE.format('api')}/pods"] = {"items": pods}


def exposing(release: str) -> bytes:
    metrics = Metrics()
    metrics.kubernetes(36, parse_release(release))
    return metrics.exposition()


OLD = "1.31"
MISSING = [rule for rule in RULES if rule not in expected_rules(release=parse_release(OLD))]


@pytest.mark.parametrize("by", ["metrics", "flag"])
async def test_rules_are_judged_by_the_release_that_the_servers_run(
    tmp_path: Path, by: str
) -> None:
    assert MISSING
    server = Installed()
    server.release = parse_release(OLD)
    newest = await examined(server, tmp_path)
    assert {group for group, one in newest.items() if one.status == "fail"} >= {
        rule.partition("/")[0] for rule in MISSING
    }
    if by == "metrics":
        runs(server, exposed=exposing(OLD))
    else:
        runs(server, f"--rules={OLD}")
    found = await examined(server, tmp_path)
    assert statuses(found) <= {"pass", "warn"}, found
    assert not any(rule in one.message for rule in MISSING for one in found.values())
    server.skipped = frozenset(["nodes/labels"])
    failing = (await examined(server, tmp_path))["nodes"]
    assert failing.status == "fail"
    assert failing.command.splitlines()[0] == f"noderestrict verify --node=n1 --rules={OLD}"


async def test_of_servers_that_cannot_be_seen_the_newest_rules_are_expected(
    tmp_path: Path,
) -> None:
    server = Installed()
    server.release = parse_release(OLD)
    runs(server, "--rules=latest")
    assert "fail" in statuses(await examined(server, tmp_path))
    runs(server, exposed=b"noderestrict_kubernetes_info 1\n")
    assert "fail" in statuses(await examined(server, tmp_path))


async def test_without_pods_what_takes_them_is_warned_of_and_the_rest_is_seen(
    tmp_path: Path,
) -> None:
    server = Installed()
    server.objects["/api/v1/nodes"] = {"items": []}
    found = await examined(server, tmp_path)
    assert found["leases"].status == "pass"
    assert found["serviceaccounts-token"].status == "warn"
    assert "could not be tried" in found["serviceaccounts-token"].message
    assert "--node=noderestrict-doctor" in found["serviceaccounts-token"].command


class WithoutClaims(Installed):
    """A cluster in which no pod on the node uses resource claims."""

    def _read(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        code, value = super()._read(path, query)
        if path == "/api/v1/pods":
            items = [
                {**pod, "spec": {**pod["spec"], "resourceClaims": []}} for pod in value["items"]
            ]
            value = {"items": items}
        return code, value


async def test_a_cluster_that_lacks_what_a_rule_is_about_has_no_fault(tmp_path: Path) -> None:
    found = await examined(WithoutClaims(), tmp_path)
    assert found["pods"].status == "warn"
    assert "could not be tried: pods/status-resource-claims" in found["pods"].message
    assert exit_code(found.values()) == 0


async def test_where_pods_cannot_be_read_what_takes_them_is_unknown(tmp_path: Path) -> None:
    server = Installed()
    server.failing = ("/api/v1/pods",)
    found = await examined(server, tmp_path)
    assert found["leases"].status == "pass"
    assert found["serviceaccounts-token"].status == "unknown"
    assert exit_code(found.values()) == 2


async def test_who_may_not_impersonate_is_told_what_grants_it(tmp_path: Path) -> None:
    server = Installed()
    server.user, server.may_impersonate = ("jane doe", []), False
    ((_, one),) = (await examined(server, tmp_path)).items()
    assert one.status == "unknown"
    assert "impersonate users/system:node:n1" in one.message
    role, binding = one.command.splitlines()
    assert role == (
        "kubectl create clusterrole noderestrict-verify --verb=impersonate "
        "--resource=users,groups --resource-name=system:node:n1 --resource-name=system:nodes"
    )
    assert binding.endswith("--clusterrole=noderestrict-verify '--user=jane doe'")


async def test_nothing_is_stored(tmp_path: Path) -> None:
    server = Installed()
    await examined(server, tmp_path)
    assert len(server.writes) > 40
    for _, path, query, user in server.writes:
        assert user.startswith("system:node:")
        assert query == ({} if path.endswith("/token") else {"dryRun": "All"})


def changing(which: Callable[[str], bool], code: int, message: str) -> Installed:
    """Return a cluster that answers writes to some paths with an error."""

    class Changed(Installed):
        def _write(self, method: str, path: str, body: Any, user: str) -> Any:
            if which(path):
                return code, {"kind": "Status", "message": message, "code": code}
            return super()._write(method, path, body, user)

    return Changed()

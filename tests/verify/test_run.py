"""Every rule is tried out against an API server that answers by our rules."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from noderestrict.cluster.access import Impersonated
from noderestrict.cluster.errors import ClusterError
from noderestrict.cluster.judge import connected
from noderestrict.policy.releases import parse_release
from noderestrict.verify import reports
from noderestrict.verify.results import ADMISSION, AUTHORIZER, Findings, RuleResult
from noderestrict.verify.run import IdentityError, Options, verify
from tests.probes.cluster import OBSERVED
from tests.serving.tls import authority, serving
from tests.verify.cluster import TOKEN, APIServer, running

OURS = 'admission webhook "nodes.noderestrict.io" denied the request: {}'.format
#: While the resource is served, its gate is on.
ON = "podcertificaterequests/gate"


async def found(server: APIServer, folder: Path, options: Options | None = None) -> Findings:
    async with running(server, folder) as kubeconfig, connected(kubeconfig, None) as connection:
        return await verify(connection, options or Options())


def results(findings: Findings, half: str) -> dict[str, RuleResult]:
    return {rule.rule: rule for rule in findings.rules if rule.half == half}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[APIServer, Findings]:
    """A cluster whose plugin has every rule, and what was found."""
    server = APIServer()
    return server, asyncio.run(found(server, tmp_path_factory.mktemp("held")))


def test_a_plugin_that_has_every_rule_holds_them(held: tuple[APIServer, Findings]) -> None:
    _, findings = held
    admission = results(findings, ADMISSION)
    assert admission.pop(ON).result == "not applicable"
    assert admission.pop("request/object").by == ("API server",)
    assert {rule.rule: (rule.by, rule.why) for rule in admission.values()} == dict.fromkeys(
        admission, (("NodeRestriction plugin",), ())
    )
    assert {rule.result for rule in results(findings, AUTHORIZER).values()} == {"holds"}
    assert findings.release == "at least those of Kubernetes 1.37"
    assert (findings.node, findings.user, findings.impersonated) == ("n1", "admin", True)
    assert findings.exit_code == 0
    assert not findings.notes


def test_it_only_sends_dry_runs_and_token_requests_as_the_node(
    held: tuple[APIServer, Findings],
) -> None:
    server, _ = held
    assert len(server.writes) > 40
    for method, path, query, user in server.writes:
        assert user in ("system:node:n1", "system:node:"), path
        if not path.endswith("/token"):
            assert query == {"dryRun": "All"}, (method, path)


def test_each_request_is_sent_once(held: tuple[APIServer, Findings]) -> None:
    server, findings = held
    attempts = {
        id(attempt)
        for rule in findings.rules
        for attempt in rule.attempts
        if rule.half == ADMISSION and attempt.request
    }
    assert len(server.writes) == len(attempts)


async def test_without_rules_only_the_authorizer_half_holds(tmp_path: Path) -> None:
    server = APIServer()
    server.enforces = False
    findings = await found(server, tmp_path)
    admission = results(findings, ADMISSION)
    del admission["request/object"], admission[ON]
    assert {rule.result for rule in admission.values()} == {"does not hold"}
    assert {rule.result for rule in results(findings, AUTHORIZER).values()} == {"holds"}
    assert findings.release.startswith("those of no release")
    assert findings.exit_code == 1


async def test_rules_that_are_off_are_found(tmp_path: Path) -> None:
    off = ["pods/delete-own", "nodes/taints", "leases/own-name"]
    server = APIServer()
    server.skipped = frozenset(off)
    findings = await found(server, tmp_path)
    failing = [one.rule for one in findings.rules if one.result == "does not hold"]
    assert failing == off
    assert findings.exit_code == 1


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("1.36", "those of Kubernetes 1.36, without "),
        ("1.33.2", "those of Kubernetes 1.33.3, without "),
        ("1.25", "those of Kubernetes 1.27, without "),
    ],
)
async def test_an_older_release_is_recognized(tmp_path: Path, release: str, said: str) -> None:
    server = APIServer()
    server.release = parse_release(release)
    findings = await found(server, tmp_path)
    # No probe tells 1.25 from 1.27.
    assert findings.release.startswith(said)
    assert "but with" not in findings.release
    assert findings.exit_code == 1


async def test_only_the_rules_of_the_wanted_release_count(tmp_path: Path) -> None:
    server = APIServer()
    server.release = parse_release("1.33.2")
    findings = await found(server, tmp_path, Options(release=server.release))
    rules = {rule.rule for rule in findings.rules}
    assert "nodes/owner-references" not in rules
    assert findings.counts["does not hold"] == 0
    assert findings.exit_code == 0
    assert findings.release == "at least those of Kubernetes 1.34"


async def test_our_webhook_is_named_as_such(tmp_path: Path) -> None:
    server = APIServer()
    server.says = OURS
    findings = await found(server, tmp_path)
    assert results(findings, ADMISSION)["nodes/taints"].by == ("noderestrict webhook",)
    assert findings.exit_code == 0


async def test_what_the_cluster_does_not_know_or_grants_is_no_hole(tmp_path: Path) -> None:
    server = APIServer()
    server.enforces = False
    server.drops = "resourceClaimStatuses"
    server.grants = frozenset(("request-serviceaccounts-token-audience",))
    told = results(await found(server, tmp_path), ADMISSION)
    dropped = told["pods/status-resource-claims"]
    assert (dropped.result, dropped.why) == (
        "not applicable", ("the API server drops status.resourceClaimStatuses",)
    )  # fmt: skip
    granted = told["serviceaccounts-token/audience"]
    assert granted.result == "unknown"
    assert "RBAC: allowed" in granted.why[0]
    assert told["podcertificaterequests/signer"].result == "does not hold"


async def test_a_token_that_comes_back_is_dropped(tmp_path: Path) -> None:
    server = APIServer()
    server.enforces, server.mints = False, True
    findings = await found(server, tmp_path)
    assert results(findings, ADMISSION)["serviceaccounts-token/bound-pod"].result == (
        "does not hold"
    )
    for name in reports.NAMES:
        assert TOKEN not in reports.written(name, findings)


async def test_without_the_right_to_impersonate_nothing_is_sent(tmp_path: Path) -> None:
    server = APIServer()
    server.may_impersonate = False
    findings = await found(server, tmp_path)
    assert not server.writes
    assert (
        "impersonate users/system:node:n1 and impersonate groups/system:nodes"
        in (findings.notes[0])
    )
    assert {rule.result for rule in results(findings, ADMISSION).values()} == {
        "unknown", "not applicable"
    }  # fmt: skip
    assert {rule.result for rule in results(findings, AUTHORIZER).values()} == {"holds"}
    assert findings.exit_code == 2


async def test_a_kubelets_credential_is_used_as_it_is(tmp_path: Path) -> None:
    server = APIServer()
    server.user, server.may_impersonate = ("system:node:n1", ["system:nodes"]), False
    findings = await found(server, tmp_path)
    assert not findings.impersonated
    assert {user for _, _, _, user in server.writes} == {""}
    unknown = [rule.rule for rule in findings.rules if rule.result == "unknown"]
    assert unknown == ["identity/node-name"]
    assert "only who may impersonate 'system:node:'" in findings.rules[0].why[0]


async def test_who_impersonates_another_user_cannot_send_a_nodes_requests(tmp_path: Path) -> None:
    """The API server would take them for those of the real user, who may do more."""
    server = APIServer()
    async with (
        running(server, tmp_path) as kubeconfig,
        connected(kubeconfig, None, (), Impersonated("eve")) as connection,
    ):
        with pytest.raises(IdentityError, match="--as eve, or the kubeconfig, impersonates no"):
            await verify(connection, Options())
        assert server.writes == []
        with pytest.raises(ClusterError, match="cannot impersonate system:node:n1 as eve"):
            await connection.post("/a", {}, headers={"Impersonate-User": "system:node:n1"})
        server.user = ("system:node:n1", ["system:nodes"])
        findings = await verify(connection, Options())
        assert findings.node == "n1"
        assert {user for _, _, _, user in server.writes} == {"eve"}


async def test_a_kubelets_credential_is_that_of_the_wanted_node(tmp_path: Path) -> None:
    server = APIServer()
    server.user = ("system:node:n1", ["system:nodes"])
    with pytest.raises(IdentityError, match="node n1, not of --node n2"):
        await found(server, tmp_path, Options(node="n2"))


async def test_what_cannot_be_read_is_noted_and_not_told(tmp_path: Path) -> None:
    server = APIServer()
    server.failing = ("/api/v1/pods", "/apis/admissionregistration.k8s.io")
    findings = await found(server, tmp_path)
    assert any("GET /api/v1/pods: 403" in note for note in findings.notes)
    assert any("is registered is unknown" in note for note in findings.notes)
    told = results(findings, ADMISSION)
    assert told["pods/delete-own"].result == "unknown"
    assert (
        told["pods/delete-own"].why[0].endswith("it takes a pod on another node that can be read")
    )
    assert told["nodes/taints"].result == "holds"
    assert findings.exit_code == 2


REGISTRATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/noderestrict"


GATES = "PodCertificateRequest=true,CSIVolumeHealth=true"


def state(file: Path) -> str:
    """Write a file with all objects of the cluster."""
    kinds = {
        "Node": [OBSERVED.own_node or {}],
        "Pod": [*OBSERVED.own_pods, *OBSERVED.foreign_pods],
        "ServiceAccount": OBSERVED.accounts.values(),
        "PersistentVolume": OBSERVED.volumes.values(),
    }
    items = [
        {**value, "apiVersion": "v1", "kind": kind}
        for kind, values in kinds.items()
        for value in values
    ]
    file.write_text(json.dumps({"kind": "List", "items": items}))
    return str(file)


@pytest.mark.parametrize(
    ("flags", "said"),
    [((), "refuses"), (("--mode", "audit"), "would refuse"),
     (("--rule-modes", "nodes/taints=off"), "lets pass")],
)  # fmt: skip
async def test_our_webhook_is_asked_directly(
    tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    server, ca = APIServer(), authority()
    folder = tmp_path / "server"
    folder.mkdir()
    with serving(
        folder,
        "--state",
        state(tmp_path / "state.json"),
        "--feature-gates",
        GATES,
        *flags,
        ca=ca,
        state=False,
    ) as webhook:
        client = {
            "url": f"https://127.0.0.1:{webhook.port}/validate",
            "caBundle": base64.b64encode(ca.certificate).decode(),
        }
        server.objects[REGISTRATION] = {"webhooks": [{"name": "a", "clientConfig": client}]}
        findings = await found(server, tmp_path)
    told = results(findings, ADMISSION)
    assert told["nodes/taints"].by == ("NodeRestriction plugin",)
    assert told["nodes/taints"].ours == f"not reached; asked directly: {said}"
    assert not [rule.rule for rule in told.values() if "honest" in rule.ours]
    assert not findings.notes


async def test_a_certificate_that_is_not_our_webhooks_is_not_trusted(tmp_path: Path) -> None:
    server = APIServer()
    folder = tmp_path / "server"
    folder.mkdir()
    with serving(folder) as webhook:
        client = {
            "url": f"https://127.0.0.1:{webhook.port}/validate",
            "caBundle": base64.b64encode(authority().certificate).decode(),
        }
        server.objects[REGISTRATION] = {"webhooks": [{"name": "a", "clientConfig": client}]}
        findings = await found(server, tmp_path)
    assert any("it could not be asked at" in note for note in findings.notes)
    assert results(findings, ADMISSION)["nodes/taints"].ours == "not reached"


async def test_our_webhook_that_cannot_be_reached_is_noted(tmp_path: Path) -> None:
    server = APIServer()
    service = {"service": {"name": "noderestrict", "namespace": "noderestrict"}}
    server.objects[REGISTRATION] = {"webhooks": [{"name": "a", "clientConfig": service}]}
    findings = await found(server, tmp_path)
    assert any("pass --connect HOST:PORT" in note for note in findings.notes)
    assert results(findings, ADMISSION)["nodes/taints"].ours == "not reached"
    assert all(attempt.direct is None for rule in findings.rules for attempt in rule.attempts)


def test_no_manifest_lets_anybody_impersonate() -> None:
    files = [
        file
        for file in (Path(__file__).parents[2] / "manifests").rglob("*")
        if file.suffix in (".yaml", ".yml", ".tpl", ".json")
    ]
    assert len(files) > 20
    assert not [file for file in files if "impersonate" in file.read_text()]

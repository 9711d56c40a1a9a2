"""What Helm is about to apply without a CA denies nobody, or the command fails before."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.certs import bundles, planned
from noderestrict.cli import main
from noderestrict.pki.bundle import certificates
from noderestrict.render.registration import webhook_configuration
from tests.cli.store import Store, stored

Object = dict[str, Any]
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
REGISTRATION, SERVED = (f"{CONFIGURATIONS}/{one}" for one in ("noderestrict", planned.NAME))
SECRETS = "/api/v1/namespaces/noderestrict/secrets"
CLIENT = {"service": {"name": "noderestrict", "namespace": "noderestrict", "path": "/validate"}}
SERVED_WEBHOOK: Object = {
    "name": planned.WEBHOOK, "clientConfig": CLIENT, "failurePolicy": "Fail"
}  # fmt: skip
TLS = ("--secret", "noderestrict/noderestrict-tls")
CA = ("--ca-secret", "noderestrict/noderestrict-ca")


@pytest.fixture(autouse=True)
def api_servers_notice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "NOTICED_SECONDS", 0)


class APIServer(Store):
    """Stores objects, and calls the webhook about one ConfigMap.

    Attributes:
        serves: whether anybody answers.
        trusted: CA bundles with which the webhook was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.serves = True
        self.trusted: list[str] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if not path.endswith("/configmaps"):
            return super().answer(method, path, body)
        assert body["metadata"]["labels"] == {planned.LABEL: "true"}
        webhooks = self.objects.get(SERVED, {}).get("webhooks")
        if not webhooks:
            # Nobody is asked.
            return 201, body
        (webhook,) = webhooks
        self.trusted.append(webhook["clientConfig"].get("caBundle", ""))
        if self.serves or webhook["failurePolicy"] == "Ignore":
            return 201, body
        return 500, {"message": f'failed calling webhook "{planned.WEBHOOK}": refused'}


@dataclass
class Cluster:
    store: APIServer
    kubeconfig: Path
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def prepare(self, *configurations: Object, flags: tuple[str, ...] = CA) -> tuple[int, str]:
        """Do what the hook does before Helm applies some configurations."""
        file = self.folder / "planned.yaml"
        file.write_text(yaml.safe_dump_all([*configurations, served()]))
        self.capsys.readouterr()
        words = (*TLS, *flags, "--planned", str(file), "--wait", "0")
        code = main(["certs", "bootstrap", *words, "--kubeconfig", str(self.kubeconfig)])
        return code, "".join(self.capsys.readouterr())

    def installed(self, *configurations: Object) -> None:
        """Let Helm apply some configurations, and the hook that follows put the CA in."""
        for one in (*configurations, served()):
            self.store.put(f"{CONFIGURATIONS}/{one['metadata']['name']}", one)
        assert self.prepare(*configurations)[0] == 0

    def webhooks(self, path: str = REGISTRATION) -> dict[str, Object]:
        return {one["name"]: one for one in self.store.objects[path]["webhooks"]}

    def bundles(self) -> set[bytes]:
        clients = [
            one["clientConfig"]
            for path in (REGISTRATION, SERVED)
            for one in self.webhooks(path).values()
        ]
        return {base64.b64decode(one.get("caBundle") or "") for one in clients}


@pytest.fixture
def cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Cluster]:
    store = APIServer()
    with stored(store, tmp_path) as kubeconfig:
        yield Cluster(store, kubeconfig, tmp_path, capsys)


def registration(policy: str = "Fail", client: Object = CLIENT, but: str = "") -> Object:
    value = webhook_configuration(client, failure_policy=policy)
    value["webhooks"] = [one for one in value["webhooks"] if not one["name"].startswith(but or "-")]
    return value


def served(client: Object = CLIENT) -> Object:
    webhook = {**SERVED_WEBHOOK, "clientConfig": client}
    return {
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": planned.NAME},
        "webhooks": [webhook],
    }


def test_before_an_installation_there_is_a_certificate_and_nothing_else(cluster: Cluster) -> None:
    code, output = cluster.prepare(registration("Ignore"), flags=())
    assert code == 0, output
    assert cluster.store.objects.keys() == {f"{SECRETS}/noderestrict-tls"}


def test_what_helm_has_applied_gets_the_ca(cluster: Cluster) -> None:
    cluster.prepare(registration("Ignore"))
    cluster.installed(registration("Ignore"))
    assert cluster.bundles() == {cluster.store.data("noderestrict-ca")["ca.crt"]}


def test_an_installation_cannot_begin_with_enforcing(cluster: Cluster) -> None:
    code, output = cluster.prepare(registration())
    assert code == 2
    assert output.count("\n") == 1
    assert "noderestrict is not installed yet" in output
    assert "mode=audit" in output
    assert cluster.store.objects == {}


def test_enforcing_needs_an_answer_through_the_api_server(cluster: Cluster) -> None:
    cluster.installed(registration("Ignore"))
    cluster.store.serves = False
    code, output = cluster.prepare(registration())
    assert code == 2
    assert "failed calling webhook" in output.splitlines()[-1]
    cluster.store.serves = True
    assert cluster.prepare(registration())[0] == 0
    # It was called with the CA that all trust.
    assert cluster.store.trusted[-1]


@pytest.mark.parametrize("left", [None, [], [{**SERVED_WEBHOOK, "failurePolicy": "Ignore"}]])
def test_where_nobody_is_asked_there_is_no_answer(
    cluster: Cluster, left: list[Object] | None
) -> None:
    cluster.installed(registration("Ignore"))
    cluster.store.serves = False
    if left is None:
        del cluster.store.objects[SERVED]
    else:
        cluster.store.objects[SERVED]["webhooks"] = left
    code, output = cluster.prepare(registration())
    assert code == 2
    assert f"nodes would be denied: {'there is no ' * (left is None)}Validating" in output
    words = ["certs", "answer", "--wait", "0", "--kubeconfig", str(cluster.kubeconfig)]
    assert main(words) == 1
    assert planned.NAME in cluster.capsys.readouterr().out


def test_in_audit_mode_nobody_need_answer(cluster: Cluster) -> None:
    cluster.installed(registration())
    cluster.store.serves = False
    assert cluster.prepare(registration("Ignore"))[0] == 0


@pytest.mark.parametrize(
    "client",
    [{"url": "https://127.0.0.1:8443/validate"},
     {"service": {**CLIENT["service"], "namespace": "another"}},
     {"service": {**CLIENT["service"], "port": 8443}}],
)  # fmt: skip
def test_a_server_that_was_never_called_is_not_enforced(cluster: Cluster, client: Object) -> None:
    cluster.installed(registration())
    before = json.dumps(cluster.store.objects)
    code, output = cluster.prepare(registration(client=client))
    assert code == 2
    assert "would call a server that it does not call yet" in output
    assert json.dumps(cluster.store.objects) == before


def test_what_an_api_server_fills_in_is_the_same_server(cluster: Cluster) -> None:
    explicit = {"service": {**CLIENT["service"], "port": 443}, "url": None}
    cluster.installed(registration(client=explicit))
    assert cluster.prepare(registration())[0] == 0


def test_a_webhook_that_is_planned_is_there_with_the_ca_before_helm_adds_it(
    cluster: Cluster,
) -> None:
    cluster.installed(registration(but="pods"))
    assert "pods.noderestrict.io" not in cluster.webhooks()
    code, output = cluster.prepare(registration())
    assert code == 0
    assert "webhook pods.noderestrict.io is there, with the CA" in output
    added = cluster.webhooks()["pods.noderestrict.io"]
    (wanted,) = (one for one in registration()["webhooks"] if one["name"] == added["name"])
    assert {**added, "clientConfig": None} == {**wanted, "clientConfig": None}
    assert len(cluster.bundles()) == 1
    assert len(certificates(cluster.bundles().pop())) == 1


def test_programs_are_told_of_a_webhook_that_was_added(cluster: Cluster) -> None:
    cluster.installed(registration(but="pods"))
    code, output = cluster.prepare(registration(), flags=(*CA, "--output", "json"))
    assert code == 0
    assert (
        "noderestrict: webhook pods.noderestrict.io is there, with the CA"
        in (json.loads(output)["done"])
    )


def test_none_is_added_while_nobody_answers(cluster: Cluster) -> None:
    cluster.installed(registration(but="pods"))
    cluster.store.serves = False
    assert cluster.prepare(registration())[0] == 2
    assert "pods.noderestrict.io" not in cluster.webhooks()


def test_nobody_owns_what_is_written_and_others_keep_what_they_own(cluster: Cluster) -> None:
    cluster.installed(registration())
    for path in (REGISTRATION, SERVED):
        value = cluster.store.objects[path]
        value["metadata"]["managedFields"] = [
            {"manager": "noderestrict", "operation": "Update"},
            {"manager": "helm", "operation": "Apply"},
            {"manager": "noderestrict", "operation": "Apply"},
        ]
    assert cluster.prepare(registration())[0] == 0
    for path in (REGISTRATION, SERVED):
        managers = cluster.store.objects[path]["metadata"]["managedFields"]
        assert managers == [{"manager": "helm", "operation": "Apply"}]


def test_what_is_well_stays_as_it_is(cluster: Cluster) -> None:
    cluster.installed(registration())
    before = json.dumps(cluster.store.objects)
    assert cluster.prepare(registration())[0] == 0
    assert json.dumps(cluster.store.objects) == before


def test_from_audit_to_enforcing_a_new_ca_is_trusted_before_it_serves(cluster: Cluster) -> None:
    written: list[tuple[str, int]] = []
    answer = cluster.store.answer

    def watched(method: str, path: str, body: Any) -> tuple[int, Any]:
        found = answer(method, path, body)
        if method != "GET" and path in (REGISTRATION, f"{SECRETS}/noderestrict-tls"):
            known = max(len(certificates(one)) if one else 0 for one in cluster.bundles())
            written.append((path.rpartition("/")[2], known))
        return found

    assert cluster.prepare(registration("Ignore"), flags=())[0] == 0
    for one in (registration("Ignore"), served()):
        cluster.store.put(f"{CONFIGURATIONS}/{one['metadata']['name']}", one)
    assert cluster.prepare(registration("Ignore"), flags=())[0] == 0
    (old,) = cluster.bundles()
    cluster.store.answer = watched  # type: ignore[method-assign]
    assert cluster.prepare(registration())[0] == 0
    assert written[:2] == [("noderestrict", 2), ("noderestrict-tls", 2)]
    (new,) = cluster.bundles()
    assert len(certificates(new)) == 1
    assert new != old


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--directory", "tls", "--planned", "x"), "--planned needs --secret"),
        ((*TLS, "--planned", "/none"), "--planned /none: "),
        ((*TLS, "--planned", "x", "--registration", "y"), "--planned needs --secret, and no"),
    ],
)
def test_a_misplaced_flag_is_told_in_one_line(
    cluster: Cluster, words: tuple[str, ...], told: str
) -> None:
    cluster.capsys.readouterr()
    code = main(["certs", "bootstrap", *words, "--kubeconfig", str(cluster.kubeconfig)])
    error = cluster.capsys.readouterr().err
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("serves", [True, False])
def test_a_test_by_helm_says_whether_the_api_server_gets_answers(
    cluster: Cluster, *, serves: bool
) -> None:
    cluster.installed(registration("Ignore"))
    cluster.store.serves = serves
    cluster.capsys.readouterr()
    words = ["certs", "answer", "--wait", "0", "--kubeconfig", str(cluster.kubeconfig)]
    assert main(words) == (0 if serves else 1)
    told = cluster.capsys.readouterr().out
    assert ("the API server gets answers" if serves else "failed calling webhook") in told


def test_without_its_registration_nothing_can_be_said(cluster: Cluster) -> None:
    words = ["certs", "answer", "--wait", "0", "--kubeconfig", str(cluster.kubeconfig)]
    assert main(words) == 1
    assert f"there is no ValidatingWebhookConfiguration {planned.NAME}" in (
        cluster.capsys.readouterr().out
    )

"""All checks are run, whatever one of them meets, and each failure is reported on one line."""

import asyncio
import json
import pkgutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor import checks
from noderestrict.doctor.audiences import known_audiences
from noderestrict.doctor.check import Check
from noderestrict.doctor.checks import authorizer, in_tree_plugin
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.findings import Finding, exit_code, passed
from noderestrict.doctor.report import as_json
from noderestrict.doctor.run import AGENT_CHECKS, CHECKS, examine

PANIC = type("PanicException", (BaseException,), {})
API_SERVERS = "/api/v1/namespaces/kube-system/pods"
#: Made only where a flag names what to check.
OPTIONAL = {"node credentials"}
DEEP = b"[" * 9995 + b"]" * 9995


class Connection:
    """Answers each path with the bytes that a test has set."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = answers

    async def get(self, path: str, _query: Any = None) -> bytes:
        return self.answers.get(path.rpartition("/")[2], b"{}")

    async def post(self, path: str, _body: Any) -> bytes:
        assert path.endswith("/subjectaccessreviews")
        return b'{"status": {"allowed": false}}'


NOWHERE: Any = Connection()


def cluster(**answers: bytes) -> Cluster:
    return Cluster(Connection(**answers))  # type: ignore[arg-type]


def api_server(*command: str) -> bytes:
    spec = {"containers": [{"command": ["kube-apiserver", *command]}]}
    return json.dumps({"items": [{"metadata": {"name": "a"}, "spec": spec}]}).encode()


async def statuses(check: Check, examined: Cluster) -> list[str]:
    return [finding.status async for finding in check.check(examined)]


def raising(error: BaseException) -> Check:
    async def check(_cluster: Cluster) -> AsyncIterator[Finding]:
        yield passed("before")
        raise error

    return Check("raising", "", check)


async def nothing_wrong(_cluster: Cluster) -> AsyncIterator[Finding]:
    yield passed("after")


@pytest.mark.parametrize(
    "error",
    [ClusterError("no answer", 500), KeyError("spec"), TypeError("two\nlines"), PANIC("rust")],
    ids=lambda error: type(error).__name__,
)
async def test_a_check_that_raises_keeps_its_findings_and_does_not_stop_the_others(
    error: BaseException,
) -> None:
    order = [raising(error), Check("next", "", nothing_wrong)]
    found = [one async for one in examine(NOWHERE, Options(), order)]
    assert [(check.name, finding.status) for check, finding in found] == [
        ("raising", "pass"), ("raising", "unknown"), ("next", "pass"),
    ]  # fmt: skip
    message = found[1][1].message
    assert message.startswith("could not be checked: ")
    assert "\n" not in message
    assert json.loads(as_json(found))[1]["check"] == "raising"


async def test_a_cancelled_examination_ends() -> None:
    with pytest.raises(asyncio.CancelledError):
        async for _ in examine(NOWHERE, Options(), [raising(asyncio.CancelledError())]):
            pass


def test_every_module_of_the_folder_is_a_check_that_runs() -> None:
    modules = {f"{checks.__name__}.{one.name}" for one in pkgutil.iter_modules(checks.__path__)}
    assert {check.check.__module__ for check in (*CHECKS, *AGENT_CHECKS)} == modules
    assert len(CHECKS) + len(AGENT_CHECKS) == len(modules)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["--enable-admission-plugins=A,NodeRestriction"], "warn"),
        (["--enable-admission-plugins", "NodeRestriction"], "warn"),
        # The API server joins the lists of a flag that is repeated.
        (["--enable-admission-plugins=NodeRestriction", "--enable-admission-plugins=A"], "warn"),
        (["--enable-admission-plugins=NodeRestriction,A", "--disable-admission-plugins=A"], "warn"),
        (["--enable-admission-plugins=NodeRestrictions"], "pass"),
        (["--enable-admission-plugins=NodeRestriction",
          "--disable-admission-plugins=NodeRestriction"], "pass"),
        ([], "pass"),
    ],
)  # fmt: skip
async def test_the_plugin_is_found_however_the_flags_are_written(
    command: list[str], status: str
) -> None:
    assert await statuses(in_tree_plugin.CHECK, cluster(pods=api_server(*command))) == [status]


@pytest.mark.parametrize(
    ("modes", "found"),
    [("Webhook,RBAC", ["warn"]), ("RBAC,Webhook", []), ("Node,RBAC", []), ("Webhook", [])],
)
async def test_a_webhook_before_rbac_is_reported(modes: str, found: list[str]) -> None:
    pods = api_server(f"--authorization-mode={modes}")
    assert await statuses(authorizer.CHECK, cluster(pods=pods)) == found


async def test_a_pod_that_no_decoder_takes_hides_nothing_from_other_checks() -> None:
    """Mirror pods of a node are in that list as well, with managedFields of its choice."""
    pods = api_server("--enable-admission-plugins=NodeRestriction")
    pods = pods[:-2] + b', {"metadata": {"name": "b", "managedFields": ' + DEEP
    pods += b'}, "spec": {"containers": [{"name": "c"}]}}]}'
    assert await statuses(in_tree_plugin.CHECK, cluster(pods=pods)) == ["warn", "pass"]


async def test_the_audiences_of_a_repeated_flag_are_joined_as_in_the_api_server() -> None:
    examined = cluster(pods=api_server("--api-audiences=a", "--api-audiences", "b,c"))
    assert await known_audiences(examined) == {"a": ["a", "b", "c"]}


NONE = "not an AuthorizationConfiguration"


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("{", "fail", NONE),
        ("- a: b\n  c: [\n", "fail", NONE),
        ("authorizers: 1", "fail", f"{NONE}: Expected `array`, got `int`"),
        ("authorizers: [{name: a}]", "fail", f"{NONE}: Object missing required field `type`"),
        ("kind: Pod\nauthorizers: []", "fail", f"{NONE}: Invalid enum value 'Pod'"),
        ("a:\n\t- b", "fail", f"{NONE}: line 2: found character"),
        ("authorizers: [{type: Webhook, webhook: 1}]", "fail", NONE),
        ("authorizers: [{type: RBAC}]", "fail", "no authorizer is a Webhook"),
        (
            "authorizers: [{type: RBAC}, {type: Webhook, webhook: "
            "{authorizedTTL: 5m, unauthorizedTTL: 1s}}]",
            "warn", "authorizedTTL is 5m",
        ),
        (
            "authorizers: [{type: RBAC}, {type: Webhook, webhook: {authorizedTTL: 300ms}}]",
            "warn", "unauthorizedTTL is unset",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_file_is_said_on_one_line(
    tmp_path: Path, text: str, status: str, message: str
) -> None:
    file = tmp_path / "authorization.yaml"
    file.write_text(text)
    (finding,) = authorizer.check_authorization_config(file)
    assert finding.status == status
    assert f"{file}: {message}" in finding.message
    assert "\n" not in finding.message


class Refusing:
    """Fails each request in one way."""

    def __init__(self, error: ClusterError) -> None:
        self.error = error
        self.asked = 0

    async def get(self, *_: Any, **__: Any) -> bytes:
        self.asked += 1
        raise self.error

    post = get


async def blind(error: ClusterError) -> tuple[Refusing, list[tuple[str, Finding]]]:
    connection = Refusing(error)
    found = [
        (check.name, one)
        async for check, one in examine(connection, Options())  # type: ignore[arg-type]
    ]
    return connection, found


@pytest.mark.parametrize(
    "why",
    ["Cannot connect to host api:6443", "certificate verify failed", "TimeoutError", "Forbidden"],
)
async def test_an_api_server_that_does_not_answer_is_told_once_and_asked_once(why: str) -> None:
    connection, found = await blind(ClusterError(f"GET /version: {why}"))
    ((check, finding),) = found
    assert (check, finding.status) == ("API server", "unknown")
    assert why in finding.message
    assert finding.command
    assert connection.asked == 1
    assert exit_code([finding]) == 2


@pytest.mark.parametrize("code", [401, 403, 500])
async def test_without_rights_no_check_is_green(code: int) -> None:
    _, found = await blind(ClusterError(f"GET /x: {code}", code))
    green = {check for check, finding in found if finding.status != "unknown"}
    assert green == {"API server"}
    assert {check for check, _ in found} == {check.name for check in CHECKS} - OPTIONAL
    assert exit_code([finding for _, finding in found]) == 2
    commands = {finding.command for _, finding in found if finding.status == "unknown"}
    assert ("noderestrict doctor --kubeconfig /etc/kubernetes/admin.conf" in commands) == (
        code != 500
    )


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((), 0),
        (("pass", "warn"), 0),
        (("pass", "unknown"), 2),
        (("unknown", "fail"), 1),
        (("fail", "pass"), 1),
    ],
)
def test_a_failure_counts_more_than_what_is_unknown(statuses: tuple[str, ...], code: int) -> None:
    assert exit_code([Finding(status, "") for status in statuses]) == code

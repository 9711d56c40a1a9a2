"""An odd kubeconfig means what it means to client-go; what it refuses is told on one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cluster.access import Access
from noderestrict.cluster.credentials import Credential, Credentials
from noderestrict.cluster.errors import ClusterError
from noderestrict.cluster.locate import find_access
from tests.cluster.odd_kubeconfigs import RECORDED, SECRET, Odd, cases
from tests.cluster.test_kubeconfig import no_other_configuration

Object = dict[str, Any]
__all__ = ["no_other_configuration"]
CASES = list(cases())
ANSWERS: dict[str, Object] = json.loads(RECORDED.read_text())
ACCEPTED = [case for case in CASES if "error" not in ANSWERS.get(case.name, {})]
REFUSED = [case for case in CASES if "error" in ANSWERS.get(case.name, {})]


def name_of(case: Odd) -> str:
    return case.name


async def taken(case: Odd, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[
    Access, Credential
]:  # fmt: skip
    """Return the access and the first credential that a case gives."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KUBECONFIG", case.write(folder))
    access = find_access(None, case.context or None)
    return access, (await Credentials.read(access)).current


def request_of(access: Access, credential: Credential) -> Object:
    """Return the request that we would send, in the form that client-go's are recorded in."""
    cluster, user = access.cluster, access.user
    headers: dict[str, str] = {}
    if credential.authorization:
        headers["Authorization"] = credential.authorization
    for name, value in user.impersonation:
        key = "-".join(word.capitalize() for word in name.split("-"))
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    found: Object = {
        "url": f"{cluster.server}/version", "headers": headers,
        "serverName": cluster.tls_server_name, "insecure": cluster.insecure,
        "ownRoots": cluster.ca is not None and cluster.server.startswith("https:"),
        "clientCertificate": user.certificate is not None, "proxy": cluster.proxy,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


def test_each_case_is_recorded_once() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) > 150
    assert set(names) == set(ANSWERS)


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
async def test_what_client_go_accepts_gives_the_same_request(
    case: Odd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.stricter:
        await refuses(case, case.stricter, tmp_path, monkeypatch)
        return
    found = request_of(*await taken(case, tmp_path, monkeypatch))
    wanted = {key: value for key, value in ANSWERS[case.name].items() if value}
    assert (found == wanted) is not bool(case.differs)


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
async def test_what_client_go_refuses_is_told_on_one_line(
    case: Odd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.lenient:
        await taken(case, tmp_path, monkeypatch)
        return
    assert case.told
    await refuses(case, case.told, tmp_path, monkeypatch)


async def refuses(case: Odd, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError) as refused:
        await taken(case, folder, monkeypatch)
    message = str(refused.value)
    assert any(one in message for one in told.split("|"))
    assert message.isprintable()
    assert len(message) < 700
    assert SECRET not in message
    if case.files and case.listed != "none" and "no cluster is configured" not in told:
        assert str(folder) in message

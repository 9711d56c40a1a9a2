"""ID tokens are exchanged for new ones, as client-go's auth provider does."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from noderestrict import __version__
from noderestrict.cluster.connection import ClusterError, ConnectionFailedError
from tests.cluster.test_credentials import Renewed, jwt, renewed
from tests.cluster.test_kubeconfig import no_other_configuration

Object = dict[str, Any]
__all__ = ["no_other_configuration"]
HOUR = 3600


class Issuer:
    """An OpenID Connect provider that accepts each refresh token once.

    Attributes:
        good: the refresh token that it accepts next.
        answers: what it answers with instead of new tokens, one after the other.
        in_form: whether the client must authenticate in the form.
    """

    def __init__(self) -> None:
        self.url = ""
        self.good = "r1"
        self.answers: list[web.Response] = []
        self.in_form = False
        self.now = time.time()
        self.issued = 0
        self.asked = 0
        self.agents: set[str] = set()

    async def metadata(self, request: web.Request) -> web.Response:
        self.agents.add(request.headers["User-Agent"])
        return web.json_response({"token_endpoint": f"{self.url}/token"})

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        pair = base64.b64encode(b"me:s%2F3cret").decode()
        if self.in_form:
            known = (form.get("client_id"), form.get("client_secret")) == ("me", "s/3cret")
        else:
            known = request.headers.get("Authorization") == f"Basic {pair}"
        if not known:
            return web.json_response({"error": "invalid_client"}, status=401)
        self.asked += 1
        if self.answers:
            return self.answers.pop(0)
        if (form["grant_type"], form["refresh_token"]) != ("refresh_token", self.good):
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.issued += 1
        self.good = f"r{self.issued + 1}"
        return web.json_response(
            {"id_token": jwt(self.now + HOUR, n=self.issued), "refresh_token": self.good}
        )


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    it = Issuer()
    app = web.Application()
    app.router.add_get("/realm/.well-known/openid-configuration", it.metadata)
    app.router.add_post("/realm/token", it.token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/realm"
    try:
        yield it
    finally:
        await runner.cleanup()


def user(it: Issuer, **config: str) -> Object:
    known = {
        "idp-issuer-url": f"{it.url}/",
        "client-id": "me",
        "client-secret": "s/3cret",
        "refresh-token": "r1",
    }
    given = {key.replace("_", "-"): value for key, value in config.items()}
    return {"auth-provider": {"name": "oidc", "config": {**known, **given}}}


def sent(n: int, it: Issuer) -> str:
    return f"Bearer {jwt(it.now + HOUR, n=n)}"


async def test_a_token_that_is_valid_is_used_until_it_is_due(tmp_path: Path) -> None:
    async with issuer() as it:
        it.now = 1_000_000.0
        first = jwt(it.now + 600)
        async with renewed(tmp_path, user(it, id_token=first)) as ours:
            assert (ours.sent, it.asked) == (f"Bearer {first}", 0)
            it.now += 300
            assert await ours.waits() == [300]
            assert ours.sent == sent(1, it)
            assert ours.credentials.expiry() == it.now + HOUR
            assert it.agents == {f"noderestrict/{__version__}"}


@pytest.mark.parametrize("in_form", [False, True])
async def test_an_expired_token_is_exchanged_at_once(tmp_path: Path, in_form: bool) -> None:
    async with issuer() as it:
        it.in_form, it.now = in_form, 1_000_000.0
        for given in ({}, {"id_token": jwt(it.now + 5)}):
            it.good = "r1"
            ours = Renewed(tmp_path, user(it, **given))
            await ours.read()
            assert ours.sent == sent(it.issued, it)
        assert it.issued == 2


async def test_a_failed_exchange_is_tried_again_with_the_same_refresh_token(
    tmp_path: Path,
) -> None:
    async with issuer() as it:
        it.now = 1_000_000.0
        async with renewed(tmp_path, user(it)) as ours:
            for step in range(2, 4):
                # A refused client is asked for once more, with the client in the form.
                it.answers = [web.json_response({}, status=503), web.Response(text="no JSON")]
                assert await ours.waits() == [HOUR - 300]
                assert ours.sent == sent(step - 1, it)
                assert "auth-provider.config.idp-issuer-url" in ours.credentials.problem
                it.answers = [web.Response(text="{}")]
                assert await ours.waits() == [1]
                it.now = ours.time.now + 2
                assert await ours.waits() == [2]
                assert ours.sent == sent(step, it)
                assert it.issued == step
            assert ours.counts == ["failed", "failed", "renewed"] * 2


async def test_new_tokens_are_kept_in_the_kubeconfig(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with issuer() as it:
        it.now = 1_000_000.0
        async with renewed(tmp_path, user(it)) as ours:
            file = tmp_path / "kubeconfig"
            file.chmod(0o640)
            kept = yaml.safe_load(file.read_text())["users"][0]["user"]["auth-provider"]["config"]
            assert (kept["refresh-token"], kept["client-id"]) == ("r2", "me")
            assert f"Bearer {kept['id-token']}" == ours.sent
            await ours.waits()
            kept = yaml.safe_load(file.read_text())["users"][0]["user"]["auth-provider"]["config"]
            assert kept["refresh-token"] == "r3"
            assert file.stat().st_mode & 0o777 == 0o640
            assert not caplog.records or all("written" not in one.message for one in caplog.records)
            file.unlink()
            file.mkdir()
            await ours.waits()
            assert it.issued == 3
            [told] = [one for one in caplog.records if "cannot be written" in one.message]
            assert told.file == str(file)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"refresh_token": ""}, "refresh-token: missing"),
        ({"id_token": "no JWT"}, "id-token: not a JWT that expires"),
        ({"id_token": jwt(None)}, "id-token: not a JWT that expires"),
    ],
)
async def test_what_no_token_can_be_had_from_is_a_bad_configuration(
    tmp_path: Path, config: dict[str, str], told: str
) -> None:
    async with issuer() as it:
        with pytest.raises(ConnectionFailedError) as error:
            await Renewed(tmp_path, user(it, **config)).read()
        assert f"users[u].user.auth-provider.config.{told}" in str(error.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"refresh_token": "hush"}, "answered without an ID token"),
        ({"id_token": 5, "refresh_token": "hush"}, "Expected `str | null`, got `int`"),
        (["hush"], "Expected `object`, got `array`"),
        ({"id_token": jwt(1000)}, "the new credential expired at 1970-01-01T00:16:40Z"),
    ],
)
async def test_what_a_provider_answers_wrong_is_told(
    tmp_path: Path, answer: Any, told: str
) -> None:
    async with issuer() as it:
        it.answers = [web.Response(text=json.dumps(answer))]
        with pytest.raises(ClusterError) as error:
            await Renewed(tmp_path, user(it)).read()
        assert told in str(error.value)
        assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "https://127.0.0.1:1", "nonsense", "http://["]
)
async def test_a_provider_that_is_not_there_is_told(tmp_path: Path, url: str) -> None:
    async with issuer() as it:
        with pytest.raises(ClusterError, match="idp-issuer-url"):
            await Renewed(tmp_path, user(it, idp_issuer_url=url)).read()

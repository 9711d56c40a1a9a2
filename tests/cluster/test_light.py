"""Of kubernetes-asyncio, only what is used is loaded, and only that needs to be installed."""

import asyncio
import contextlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from noderestrict.cluster.kubernetes_client import UNUSED
from tests.cli.cluster import TOKEN, Recorder, kubeconfig, plugin, run, running, world
from tests.cli.process import PROGRAM, ROOT, SECONDS, environment

LIBRARY = "kubernetes_asyncio"
LOADED = f"[name for name in sys.modules if name.startswith({LIBRARY!r})]"


def printed(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}"], capture_output=True, text=True,
        check=True, timeout=SECONDS,
    )  # fmt: skip
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the library as an image may have it."""
    spec = importlib.util.find_spec(LIBRARY)
    assert spec is not None
    assert spec.origin is not None
    whole = Path(spec.origin).parent
    folder = tmp_path_factory.mktemp("lean")

    def ignored(directory: str, names: list[str]) -> list[str]:
        inside = Path(directory).relative_to(whole)
        return [name for name in names if str(inside / name) in UNUSED or name == "__pycache__"]

    shutil.copytree(whole, folder / LIBRARY, ignore=ignored)
    assert all((whole / name).is_dir() for name in UNUSED)
    assert not any((folder / LIBRARY / name).exists() for name in UNUSED)
    return folder


def test_a_connection_loads_no_generated_code() -> None:
    loaded = printed(f"import noderestrict.cluster.start\nprint(json.dumps({LOADED}))")
    assert not [name for name in loaded if re.search(r"\.(models|api|dynamic|watch)\b", name)]
    assert len(loaded) < 10


def test_the_library_as_a_whole_is_there_for_whoever_imports_it_later() -> None:
    ours = "import noderestrict.cluster.kubernetes_client as ours\n"
    whole = (
        "from kubernetes_asyncio import client, config\n"
        "from kubernetes_asyncio.config import incluster_config\n"
    )
    same = (
        "assert client.ApiClient is ours.ApiClient\n"
        "assert client.Configuration is ours.Configuration\n"
        "assert incluster_config is ours.incluster_config\n"
        "assert client.V1Pod(metadata=client.V1ObjectMeta(name='p')).metadata.name == 'p'\n"
        "assert client.CoreV1Api\n"
        "print('[]')"
    )
    assert printed(ours + whole + same) == []
    assert printed(whole + ours + same) == []


def test_every_module_comes_from_the_lean_library(lean: Path) -> None:
    code = (
        f"sys.path.insert(0, {str(lean)!r})\n"
        "import noderestrict.cluster.start\n"
        f"print(json.dumps([sys.modules[name].__file__ for name in {LOADED}]))"
    )
    assert all(file.startswith(str(lean)) for file in printed(code))


async def test_commands_ask_a_cluster_with_the_lean_library_and_a_plugin(
    lean: Path, tmp_path: Path
) -> None:
    recorder = Recorder(world())
    async with running(recorder) as port:
        file = str(kubeconfig(tmp_path / "k", port, plugin(tmp_path)))
        path = {"PYTHONPATH": f"{lean}:{ROOT}"}
        code, out, err = await run("graph", "reachable", "n1", "--kubeconfig", file, **path)
        assert (code, err) == (0, "")
        assert "secret ns/used" in out
        assert {who for who, _ in recorder.who} == {f"Bearer {TOKEN}"}
        code, out, err = await run("doctor", "-o", "json", "--kubeconfig", file, **path)
        # The scripted API server does not have all that the checks look at.
        assert (code, err) == (2, ""), out
        found = {one["check"]: one["status"] for one in json.loads(out)}
        assert found["server version"] == "pass", found


async def test_a_server_follows_a_cluster_with_the_lean_library(lean: Path, tmp_path: Path) -> None:
    async with running(Recorder(world())) as port:
        file = str(kubeconfig(tmp_path / "k", port, plugin(tmp_path)))
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "serve", "--dev", "--port", "0", "--metrics-address", "",
            "--kubeconfig", file, "--api-audiences", "api", "--authorizer",
            cwd=tmp_path,
            env=environment(PYTHONPATH=f"{lean}:{ROOT}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            seen = b""
            async with asyncio.timeout(SECONDS):
                while not re.search(rb"https://127\.0\.0\.1:\d+/validate", seen):
                    seen += (line := await process.stdout.readline())
                    assert line, seen
            process.terminate()
            assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

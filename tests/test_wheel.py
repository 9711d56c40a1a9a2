"""The wheel has what it needs and nothing else, and works beside nothing but its dependencies."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from noderestrict import __version__

ROOT = Path(__file__).parent.parent
SECONDS = 300
BUILD = {"commit": "0a1b2c3d", "date": "2026-01-02T03:04:05Z"}
#: Where the wheel is installed, and cannot see this checkout.
COPIED = ("noderestrict", "pyproject.toml", "README.md", "LICENSE", ".gitignore")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel as a release has it, built offline."""
    source = tmp_path_factory.mktemp("source")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    (source / "noderestrict" / "build.json").write_text(json.dumps(BUILD))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    (built,) = (source / "dist").iterdir()
    return built


def closure(*names: str) -> set[str]:
    """Return the distributions that some need, without extras."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                left.append(needed.name)
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the scripts of an environment with the wheel and what it declares to need."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=SECONDS
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in closure("noderestrict") - {"noderestrict"}:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            if ".." in file.parts or "__pycache__" in file.parts[0]:
                continue
            target = packages / file.parts[0]
            if not target.exists():
                target.symlink_to(Path(str(distribution.locate_file(file.parts[0]))))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install",
         "--quiet", "--no-index", "--no-deps", "--no-compile", str(wheel)],
        check=True,
        timeout=SECONDS,
    )  # fmt: skip
    return folder / "bin"


def ran(script: Path, *arguments: str, cwd: Path) -> tuple[int, str, str]:
    clean = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [str(script), *arguments],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"noderestrict-{__version__}.dist-info/"
    own = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "noderestrict").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {"noderestrict/build.json"}
    assert {name for name in names if not name.startswith(info)} == own
    assert "noderestrict/py.typed" in own
    assert "noderestrict/render/data/manifests/base/rbac.yaml" in own
    assert f"{info}licenses/LICENSE" in names


def test_the_extras_are_not_needed_and_the_dependencies_are_few() -> None:
    names = closure("noderestrict")
    assert not names & {"backports-zstd", "cel-expr-python", "protobuf", "pytest", "hatchling"}
    assert {"aiohttp", "kubernetes-asyncio", "msgspec", "shtab"} <= names


def test_commands_work_in_an_environment_with_the_wheel_alone(
    installed: Path, tmp_path: Path
) -> None:
    program = installed / "noderestrict"
    examples = ROOT / "examples"
    code, out, err = ran(program, "version", "-o", "json", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert json.loads(out)["build"] == BUILD
    state = ("--state", str(examples / "authorizer-state.json"))
    code, out, err = ran(program, "graph", "reachable", "worker-1", *state, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "secret default/mysecret" in out
    review = str(examples / "mirror-pod-review.json")
    code, out, err = ran(program, "replay", review, "-o", "json", cwd=tmp_path)
    assert code == 0
    assert json.loads(out)["decision"] == "denied"
    code, out, err = ran(program, "doctor", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("noderestrict doctor: no cluster is configured")
    code, out, err = ran(program, "render", "out", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert (tmp_path / "out" / "base" / "rbac.yaml").exists()
    code, out, err = ran(program, "completion", "bash", cwd=tmp_path)
    assert (code, err) == (0, "")
    code, out, err = ran(program, "replay", review, "--policies", "rendered", cwd=tmp_path)
    assert code == 2
    assert "noderestrict[policies]" in err
    assert "Traceback" not in err


def test_kubectl_finds_its_plugin(installed: Path, tmp_path: Path) -> None:
    code, out, err = ran(installed / "kubectl-noderestrict", "graph", "--help", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("usage: kubectl noderestrict graph QUESTION ...")

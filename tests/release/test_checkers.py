"""What checkers of workflows, Dockerfile and documents find."""

import shutil
import sys
from pathlib import Path

import pytest

from noderestrict.render.manifests import OVERLAYS
from tests.release.conftest import ROOT, run

pytestmark = pytest.mark.release

_BIN = Path(sys.executable).parent


def test_zizmor_finds_nothing_in_the_workflows() -> None:
    run(_BIN / "zizmor", "--offline", "--persona=pedantic", ".github")


def test_actionlint_finds_nothing_in_the_workflows() -> None:
    if shutil.which("go") is None:
        pytest.skip("no Go, to build actionlint with")
    run("go", "run", "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
        *sorted((ROOT / ".github" / "workflows").glob("*.yaml")))  # fmt: skip


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    run(_BIN / "hadolint", "Dockerfile")


def test_checkov_finds_nothing_in_the_dockerfile_and_the_manifests(tmp_path: Path) -> None:
    checkov = ROOT / ".assets" / "checkov" / "bin" / "checkov"
    if not checkov.exists():
        pytest.skip("no checkov: make checkov-assets")
    for overlay in OVERLAYS:
        text = run(_BIN / "noderestrict", "render", "overlay", overlay)
        (tmp_path / f"{overlay}.yaml").write_text(text)
    run(checkov, "--config-file", ".github/checkov.yaml", "--file", "Dockerfile",
        *tmp_path.iterdir())  # fmt: skip


def test_the_site_builds_and_its_links_lead_somewhere() -> None:
    run(_BIN / "zensical", "build", "--strict", "--config-file", "docs/zensical.toml")

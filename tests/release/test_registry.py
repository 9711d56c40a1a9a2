"""A release in a registry, signed, with bills of materials and provenance.

The commands are those of the workflow, and so is who must have signed. Only the servers of Sigstore
are missing: an authority of our own stands in for theirs, and there is no log.
"""

import base64
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noderestrict import __version__
from tests.e2e.control_plane import free_port
from tests.e2e.helm import helm_binary
from tests.release import signer
from tests.release.conftest import ROOT
from tests.release.test_provenance import RUN
from tests.release.test_workflows import signed_by
from tests.release.tools import tool

pytestmark = pytest.mark.release

_SECONDS = 30
_OURS = signed_by(RUN)
_THEIRS = {**_OURS, "COSIGN_CERTIFICATE_IDENTITY": "https://github.com/owner/fork"}


@dataclass(frozen=True)
class Registry:
    """A registry, and who publishes there.

    Attributes:
        repository: where the image is.
        folder: with what signs.
    """

    repository: str
    folder: Path

    def run(
        self, *command: str | Path, variables: Mapping[str, str] = _OURS, fails: bool = False
    ) -> str:
        """Return what a command prints, its errors if it fails.

        Args:
            command: and its arguments.
            variables: of its environment; by default, who must have signed.
            fails: whether it must.
        """
        places = (tool("cosign").parent, Path(helm_binary()).parent)
        environment = {
            **RUN,
            "PATH": os.pathsep.join((*map(str, places), os.environ["PATH"])),
            "HOME": str(self.folder),
            "PLAIN_HTTP": "1",
            "COSIGN_TRUSTED_ROOT": str(self.folder / "trusted.json"),
            "COSIGN_ALLOW_CERTIFICATE_CHAIN": "true",
            "COSIGN_INSECURE_IGNORE_SCT": "true",
            "COSIGN_INSECURE_IGNORE_TLOG": "true",
            **variables,
        }
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert bool(done.returncode) == fails, (command, done.stdout, done.stderr)
        return done.stderr if fails else done.stdout

    def prepare(self) -> None:
        """Make what signs, and what is trusted."""
        signer.write(
            self.folder,
            _OURS["COSIGN_CERTIFICATE_IDENTITY"],
            _OURS["COSIGN_CERTIFICATE_OIDC_ISSUER"],
        )
        self.run("cosign", "import-key-pair", "--yes", "--key", self.folder / "tls-key.pem",
                 "--output-key-prefix", self.folder / "tls",
                 variables={"COSIGN_PASSWORD": ""})  # fmt: skip
        self.run("cosign", "signing-config", "create", "--out", self.folder / "signing.json")
        authority = f"url=https://fulcio.example,certificate-chain={self.folder / 'ca.pem'}"
        self.run("cosign", "trusted-root", "create", "--fulcio", authority,
                 "--out", self.folder / "trusted.json")  # fmt: skip

    def publish(self, dist: Path) -> None:
        variables = {
            "COSIGN_KEY": str(self.folder / "tls.key"),
            "COSIGN_PASSWORD": "",
            "COSIGN_CERTIFICATE": str(self.folder / "tls.pem"),
            "COSIGN_CERTIFICATE_CHAIN": str(self.folder / "ca.pem"),
            "COSIGN_SIGNING_CONFIG": str(self.folder / "signing.json"),
        }
        self.run("tests/release/registry", "publish", dist, self.repository, __version__,
                 variables=variables)  # fmt: skip

    def verify(self, dist: Path, **options: Any) -> str:
        return self.run(
            "tests/release/registry", "verify", dist, self.repository, __version__, **options
        )

    def attested(self, kind: str, image: str) -> dict[str, Any]:
        """Return the statement of a verified attestation."""
        text = self.run("cosign", "verify-attestation", "--type", kind, image)
        statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(text)["payload"]))
        return statement


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    address = f"127.0.0.1:{free_port()}"
    made = Registry(f"{address}/owner/name", tmp_path_factory.mktemp("registry"))
    made.prepare()
    server = subprocess.Popen([tool("crane"), "registry", "serve", "--address", address],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        end = time.monotonic() + _SECONDS
        while not _answers(address):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield made
    finally:
        server.terminate()
        server.wait(_SECONDS)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=_SECONDS):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def published(registry: Registry, dist: Path, bills: dict[str, Path], chart: Path) -> Registry:
    registry.publish(dist)
    return registry


def test_image_and_chart_are_what_the_workflow_signed(published: Registry, dist: Path) -> None:
    published.verify(dist)
    assert "no matching CertificateIdentity" in published.verify(
        dist, variables=_THEIRS, fails=True
    )


def test_each_bill_is_attested_for_its_image(published: Registry, bills: dict[str, Path]) -> None:
    for architecture, bill in bills.items():
        digest = published.run("crane", "digest", "--platform", f"linux/{architecture}",
                               f"{published.repository}:{__version__}").strip()  # fmt: skip
        statement = published.attested("cyclonedx", f"{published.repository}@{digest}")
        assert statement["predicate"] == json.loads(bill.read_text())
        assert statement["subject"][0]["digest"] == {"sha256": digest.removeprefix("sha256:")}


def test_the_provenance_names_the_commit(published: Registry) -> None:
    for name in (published.repository, f"{published.repository}/charts/noderestrict"):
        statement = published.attested("slsaprovenance1", f"{name}:{__version__}")
        (source, *_) = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        assert source["digest"] == {"gitCommit": RUN["GITHUB_SHA"]}


def test_a_changed_image_is_not_verified(
    published: Registry, bills: dict[str, Path], dist: Path
) -> None:
    tagged = f"{published.repository}:{__version__}"
    digest = published.run("crane", "digest", tagged).strip()
    published.run("crane", "mutate", "--platform", f"linux/{next(iter(bills))}",
                  "--label", "changed=yes", "--tag", tagged, tagged)  # fmt: skip
    try:
        assert "no signatures found" in published.verify(dist, fails=True)
    finally:
        published.run("crane", "tag", f"{published.repository}@{digest}", __version__)
    published.verify(dist)

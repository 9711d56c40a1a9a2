"""The CEL of an API server without one: what its own library makes of our policies."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

ASSETS = Path(__file__).parents[1] / "assets"
#: The module whose library is taken, and where the program is built.
MODULE, PROGRAM = ASSETS / "kubernetes-1.36", ASSETS.parents[1] / ".assets" / "cel"
#: What all validations of a policy may cost: RuntimeCELCostBudget of k8s.io/apiserver/pkg/apis/cel.
RUNTIME_BUDGET = 10_000_000
Object = dict[str, Any]


class Evaluated(msgspec.Struct):
    """What one expression says, and what it costs with the variables that it reads."""

    name: str
    result: str
    cost: int
    micros: int
    error: str = ""


class Judged(msgspec.Struct):
    """What a policy says of a request that it matches.

    Attributes:
        total: cost of all validations, in which each variable is evaluated once; -1 if an API
            server gives up.
    """

    policy: str
    conditions: list[Evaluated]
    validations: list[Evaluated]
    messages: list[Evaluated]
    annotations: list[Evaluated]
    total: int


def build() -> Path:
    """Build the program; skips the test where that is impossible."""
    if shutil.which("go") is None:
        pytest.skip("no Go to build tests/assets/cel with")
    PROGRAM.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["go", "build", "-trimpath", "-o", PROGRAM, ASSETS / "cel" / "main.go"],
        cwd=MODULE, env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}, check=True,
    )  # fmt: skip
    return PROGRAM


def judge(
    program: Path, policies: Iterable[Object], requests: Iterable[Mapping[str, Any]]
) -> Iterator[list[Judged]]:
    """Yield for each request what the policies say that match it.

    Args:
        program: as built.
        policies: and bindings, which are passed over.
        requests: of AdmissionReviews.
    """
    given = [one for one in policies if one["kind"] == "ValidatingAdmissionPolicy"]
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"policies": given}).encode())
        for request in requests:
            process.stdin.write(json.dumps({"request": as_sent(request)}).encode())
            process.stdin.flush()
            yield msgspec.json.decode(process.stdout.readline(), type=list[Judged])
        process.stdin.close()


def as_sent(value: Any) -> Any:
    """Return a request without nulls, which no API server puts into an object."""
    if isinstance(value, Mapping):
        return {key: as_sent(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [as_sent(one) for one in value]
    return value

"""Run the command line as a process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
STATE = str(EXAMPLES / "state.json")
PROGRAM = (sys.executable, "-m", "noderestrict")
SECONDS = 120


def environment(**changed: str) -> dict[str, str]:
    """Return an environment without what would change the outcome."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NODERESTRICT_", "LC_", "KUBE"))
        and name not in ("LANG", "COLUMNS", "PYTHONIOENCODING")
    }
    return {**kept, "LANG": "C.UTF-8", **changed}


def shell(script: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in which ``$nr`` is the program."""
    changed = environment(nr=" ".join(PROGRAM), examples=str(EXAMPLES), **env)
    return subprocess.run(
        ["bash", "-c", script],
        env=changed,
        cwd=cwd or ROOT,
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )

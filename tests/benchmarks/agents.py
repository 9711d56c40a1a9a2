"""What an agent's review costs, beside a kubelet's with the same objects, in turns."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.ab import STATE
from tests.benchmarks.ratios import ratio
from tests.benchmarks.server import bodies
from tests.benchmarks.turns import Kind, in_turns
from tests.serving.tls import Server, serving

#: More than this, times a node's, is a loss of speed; so is this, times what a node's took without
#: any agents.
OF_NODE, WITHOUT = 1.2, 1.03
PROCESSES, ROUNDS = 4, 40  # of each kind
#: The kinds that POLICY is about.
JUDGED = ("node status", "pod status", "lease")
_PREFIX = "authentication.kubernetes.io/"
POLICY = """
agents:
- name: agent
  users: [{serviceAccount: kube-system/agent}]
  write:
  - {resources: [nodes/status], operations: [UPDATE], relation: own-node, fields: [status]}
  - {resources: [pods/status], operations: [UPDATE], relation: own-pods, fields: [status]}
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    operations: [UPDATE]
    relation: {name: "{node}"}
    fields: [spec]
"""


def of_agent(body: bytes) -> bytes:
    """Return a kubelet's review as if an agent on its node had sent it."""
    review = json.loads(body)
    node = review["request"]["userInfo"]["username"].removeprefix("system:node:")
    review["request"]["userInfo"] = {
        "username": "system:serviceaccount:kube-system:agent",
        "uid": "0b1f2c3d-0000-4000-8000-000000000001",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {
            f"{_PREFIX}credential-id": ["JTI=0b1f2c3d-0000-4000-8000-000000000002"],
            f"{_PREFIX}node-name": [node],
            f"{_PREFIX}node-uid": ["0b1f2c3d-0000-4000-8000-000000000003"],
            f"{_PREFIX}pod-name": ["agent-abcde"],
            f"{_PREFIX}pod-uid": ["0b1f2c3d-0000-4000-8000-000000000004"],
        },
    }
    return json.dumps(review, separators=(",", ":")).encode()


def figures() -> dict[str, dict[str, float]]:
    """Print and return the CPU of each review, in microseconds, and its ratios.

    Two servers run side by side, one with agents and one without. All kinds take turns. Equal
    processes differ by some percent, so there are several pairs of them.
    """
    micros: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in ("node", "beside", "agent")} for kind in JUDGED
    }
    with TemporaryDirectory() as name:
        for number in range(PROCESSES):
            folder = Path(name) / str(number)
            folder.mkdir()
            for kind, found in _of_two_servers(folder).items():
                for name_, values in found.items():
                    micros[kind][name_] += values
    print(f"\n{'CPU µs a review':<18}{'node':>8}{'beside agents':>15}{'agent':>8}")
    return {kind: _told(kind, found) for kind, found in micros.items()}


def _of_two_servers(folder: Path) -> dict[str, dict[str, list[float]]]:
    (folder / "agents.yaml").write_text(POLICY)
    (folder / "with").mkdir()
    (folder / "without").mkdir()
    flags = ("--agents", str(folder / "agents.yaml"))
    files = bodies(folder)
    with (
        serving(folder / "without", *STATE, state=False) as without,
        serving(folder / "with", *STATE, *flags, state=False) as held,
    ):

        def sent_to(server: Server, body: bytes) -> Kind:
            return Kind(f"https://127.0.0.1:{server.port}/validate", server.process.pid, body)

        found = {}
        for kind in JUDGED:
            body = files[kind].read_bytes()
            found[kind] = in_turns(
                {
                    "node": sent_to(without, body),
                    "beside": sent_to(held, body),
                    "agent": sent_to(held, of_agent(body)),
                },
                ROUNDS,
            )
        return found


def _told(kind: str, micros: Mapping[str, list[float]]) -> dict[str, float]:
    medians = {name: statistics.median(values) for name, values in micros.items()}
    agent = ratio(micros["agent"], micros["beside"])
    node = ratio(micros["beside"], micros["node"])
    print(
        f"{kind:<18}{medians['node']:>8.0f}{medians['beside']:>15.0f}{medians['agent']:>8.0f}   "
        f"agent ×{agent}, at most {OF_NODE}; node ×{node}, at most {WITHOUT}",
        flush=True,
    )
    return {**medians, "agent / node": agent.value, "node / before": node.value}

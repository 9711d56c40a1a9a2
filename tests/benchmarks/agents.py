"""What an agent's review costs, beside a kubelet's with the same objects, in turns."""

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.ab import STATE, measure
from tests.benchmarks.load import Job
from tests.benchmarks.server import Target, bodies, load
from tests.serving.tls import serving

#: More than this, times a node's, is a loss of speed; so is this, times what a node's took without
#: any agents.
OF_NODE, WITHOUT = 1.2, 1.03
PAIRS, SECONDS = 9, 1.0
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


def figures(pairs: int = PAIRS) -> dict[str, dict[str, float]]:
    """Print and return the CPU of each review, in microseconds, and its ratios.

    Two servers run side by side, one with agents and one without. All kinds take turns.
    """
    found = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "agents.yaml").write_text(POLICY)
        (folder / "with").mkdir()
        (folder / "without").mkdir()
        flags = ("--agents", str(folder / "agents.yaml"))
        with (
            serving(folder / "without", *STATE, state=False) as without,
            serving(folder / "with", *STATE, *flags, state=False) as held,
        ):
            before, after = (
                Target(title, f"https://127.0.0.1:{server.port}/validate", server.process.pid)
                for title, server in (("without", without), ("with", held))
            )
            print(f"\n{'CPU µs a review':<18}{'node':>8}{'beside agents':>15}{'agent':>8}")
            for kind, body in bodies(folder).items():
                if kind not in JUDGED:
                    continue
                agent = body.with_name(f"{body.name}-of-agent")
                agent.write_bytes(of_agent(body.read_bytes()))
                found[kind] = in_turns(
                    {"node": (before, body), "beside": (after, body), "agent": (after, agent)},
                    pairs,
                )
                print(_row(kind, found[kind]), flush=True)
    return found


def in_turns(jobs: dict[str, tuple[Target, Path]], rounds: int) -> dict[str, float]:
    """Return the median CPU of each job, and the medians of the rounds' ratios."""
    micros: dict[str, list[float]] = {name: [] for name in jobs}
    for target, body in jobs.values():
        load(Job(target.url, str(body), 0.5))
    for number in range(rounds):
        names = list(jobs)
        # Each goes first as often.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            micros[name].append(measure(*jobs[name], SECONDS)["CPU"] * 1e6)
    return {
        **{name: statistics.median(values) for name, values in micros.items()},
        "agent / node": _ratio(micros["agent"], micros["beside"]),
        "node / before": _ratio(micros["beside"], micros["node"]),
    }


def _ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def _row(kind: str, found: dict[str, float]) -> str:
    return (
        f"{kind:<18}{found['node']:>8.0f}{found['beside']:>15.0f}{found['agent']:>8.0f}   "
        f"agent ×{found['agent / node']:.2f} (at most {OF_NODE}), "
        f"node ×{found['node / before']:.3f} (at most {WITHOUT})"
    )

"""Policies on what nodes cannot start without: kube-proxy, and a network plugin."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.render.workload import NAMESPACE
from tests.containers.authorizer import NOBODY, Authorizer
from tests.containers.cluster import Cluster, Kubectl, run, until
from tests.containers.conftest import emptied
from tests.containers.machine import Machine
from tests.containers.product import Product
from tests.containers.requests import not_ready
from tests.containers.test_cold_start import heals, proxied, restart
from tests.containers.test_failures import run_servers

pytestmark = [pytest.mark.cluster, pytest.mark.full]

HERE = Path(__file__).parent
POLICY, AGENT = HERE / "agents.yaml", HERE / "net-agent.yaml"
SYSTEM = ("-n", "kube-system")
NETWORK = "/etc/cni/net.d/10-bridge.conflist"
TURN = "{.metadata.annotations.net\\.example\\.com/turn}"
#: Seconds, longer than a lease lasts and than a node may go unheard.
AWAY = 70
#: The command lines of the agents.
PROCESSES = ("kube-proxy", "sh -c works")
MARK = {"net.example.com/a": "b"}
NODES = "/api/v1/nodes"
CORDONED = {"spec": {"unschedulable": True}}
#: What RBAC lets the agent do beyond its node, and admission must not; OTHER is another node.
WRITES = {
    "annotate another node": ("PATCH", f"{NODES}/OTHER", {"metadata": {"annotations": MARK}}),
    "label another node": ("PATCH", f"{NODES}/OTHER", {"metadata": {"labels": {"a": "b"}}}),
    "cordon another node": ("PATCH", f"{NODES}/OTHER", CORDONED),
    "cordon its own node": ("PATCH", f"{NODES}/OWN", CORDONED),
    "another node's capacity": (
        "PATCH", f"{NODES}/OTHER/status", {"status": {"capacity": {"pods": "0"}}},
    ),
    "delete a pod elsewhere": ("DELETE", "/api/v1/namespaces/kube-system/pods/ELSEWHERE", None),
}  # fmt: skip
#: Likewise, and the authorizer must not.
READS = {
    "another node": ("get", "node", "OTHER"),
    "all nodes": ("get", "nodes"),
    "all pods": ("get", "pods", "-A"),
    "the pods of another node": ("get", "pods", "-A", "--field-selector=spec.nodeName=OTHER"),
    "a Secret": ("get", "secret", "web", "-n", "shop"),
    "all Secrets": ("get", "secrets", "-A"),
}


class Agents:
    """The agents of a cluster.

    Args:
        machine: the cluster.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.node, self.other = machine.workers

    def turn(self, node: str) -> int:
        """Return how often the agent of a node has done all its work."""
        kubectl = self.machine.kubectl
        return int(kubectl("get", "node", node, "-o", f"jsonpath={TURN}") or 0)

    def _token(self) -> str:
        """Return the token of the agent of the first worker, as it is on its disk."""
        uid = self._pod(self.node)["metadata"]["uid"]
        volumes = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected"
        return self.machine.exec(self.node, "sh", "-c", f"cat {volumes}/*/token")

    def stolen(self) -> Kubectl:
        """Return kubectl with this token."""
        config = yaml.safe_load(self.machine.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self._token()}
        file = self.machine.folder / "agent.kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return self.machine.user(file)

    def read(self, name: str) -> list[str]:
        """Return one of READS as kubectl takes it."""
        return [word.replace("OTHER", self.other) for word in READS[name]]

    def write(self, name: str) -> str:
        """Send one of WRITES with this token, as a dry run, and return the answer.

        Kubectl reads before it writes.
        """
        method, path, body = WRITES[name]
        path = path.replace("OTHER", self.other).replace("OWN", self.node)
        if "ELSEWHERE" in path:
            path = path.replace("ELSEWHERE", self._pod(self.other)["metadata"]["name"])
        return self._send(method, path, body)

    def mark_own_node(self) -> str:
        """Do likewise what the agent may do."""
        return self._send("PATCH", f"{NODES}/{self.node}", {"metadata": {"annotations": MARK}})

    def _send(self, method: str, path: str, body: object) -> str:
        config = self.machine.kubectl.json("config", "view", "--raw")["clusters"][0]["cluster"]
        sent = () if body is None else ("--data", json.dumps(body))
        return run(*self.machine.local(
            "curl", "--silent", "--insecure", "--request", method,
            "--header", f"Authorization: Bearer {self._token()}",
            "--header", "Content-Type: application/merge-patch+json", *sent,
            f"{config['server']}{path}?dryRun=All",
        ))  # fmt: skip

    def _pod(self, node: str) -> dict[str, Any]:
        found = self.machine.kubectl.json(
            "get", "pods", *SYSTEM, "-l", "app=net-agent", f"--field-selector=spec.nodeName={node}"
        )["items"]
        return next(one for one in found if "deletionTimestamp" not in one["metadata"])

    def begin_anew(self, node: str) -> None:
        """Take from a node all that its agents have set up, and kill them."""
        flush = "printf '*nat\\nCOMMIT\\n' | iptables-restore"
        self.machine.exec(node, "sh", "-ec", f": > {NETWORK}; {flush}")
        running = self.machine.exec(node, "ps", "-A", "-o", "pid=,args=").splitlines()
        for line in running:
            pid, _, command = line.strip().partition(" ")
            if any(one in command for one in PROCESSES):
                self.machine.exec(node, "kill", "-9", pid)

    def has_network(self, node: str) -> bool:
        """Tell whether a node's agents have set all up."""
        return bool(self.machine.exec(node, "cat", NETWORK)) and proxied(self.machine, node)


@pytest.fixture(scope="module")
def agents(running: Cluster) -> Iterator[Agents]:
    """A network plugin, whose node has no network before it works; nothing holds it yet."""
    if not isinstance(running, Machine):
        pytest.skip("the authorizer's page needs a shell on a control-plane node")
    emptied(running)
    image = running.builder.command("kubectl", "1", shell=True)
    for node in running.nodes:
        running.import_image(node, image)
    kubectl = running.kubectl
    try:
        kubectl("apply", "-f", str(AGENT))
        kubectl("rollout", "status", "daemonset/net-agent", *SYSTEM, "--timeout=180s")
        found = Agents(running)
        until("all agents have worked", lambda: all(map(found.has_network, running.nodes)))
        yield found
    finally:
        kubectl("delete", "--ignore-not-found", "-f", str(AGENT))
        running.take_over()


@pytest.fixture(scope="module")
def product(agents: Agents) -> Product:
    """The admission half, with policies on the agents; what it refuses would pass without it."""
    for name in WRITES:
        assert '"Failure"' not in (answer := agents.write(name)), (name, answer)
    stolen = agents.stolen()
    for name in READS:
        stolen(*agents.read(name))
    folder = agents.machine.folder / "agents"
    folder.mkdir(exist_ok=True)
    found = Product(agents.machine)
    found.hold_agents(folder, POLICY)
    found.install("control-plane")
    return found


@pytest.fixture(scope="module")
def authorizer(agents: Agents, product: Product) -> Iterator[Authorizer]:
    """The other half, with the same policies."""
    del product
    installed = Authorizer(agents.machine)
    try:
        installed.install(POLICY.read_text())
        installed.keep_nodes_ready()
        yield installed
    finally:
        installed.undo()


def agents_are_held(agents: Agents) -> None:
    """Check that a stolen token of an agent reaches its own node, and no other."""
    for name in WRITES:
        answer = agents.write(name)
        assert "all.agents.noderestrict.io" in answer, (name, answer)
    reads_are_held(agents)
    assert '"Failure"' not in (answer := agents.mark_own_node()), answer
    stolen = agents.stolen()
    stolen("get", "pods", "-A", f"--field-selector=spec.nodeName={agents.node}")
    turns = {node: agents.turn(node) for node in agents.machine.nodes}
    until("all agents work", lambda: all(agents.turn(one) != turn for one, turn in turns.items()))


def reads_are_held(agents: Agents, by: str = "forbidden") -> None:
    """Check the part of it that the authorizer holds, and how the API server says so."""
    stolen = agents.stolen()
    for name in READS:
        refusal = stolen.refusal(*agents.read(name))
        assert by in refusal, (name, refusal)


def test_a_stolen_token_reaches_its_own_node_alone(agents: Agents, authorizer: Authorizer) -> None:
    assert authorizer.is_asked()
    until("the policies are in force", lambda: refused(agents, "annotate another node"))
    agents_are_held(agents)


def refused(agents: Agents, name: str) -> bool:
    """Tell whether a write of the stolen token is refused."""
    return "all.agents.noderestrict.io" in agents.write(name)


def test_a_cluster_that_was_off_heals_under_the_policies(
    agents: Agents, product: Product, authorizer: Authorizer
) -> None:
    machine = agents.machine
    for node in machine.nodes:
        # What the plugin had set up is no help, nor are the rules, which went with the power.
        machine.exec(node, "sh", "-c", f": > {NETWORK}")
    since = restart(machine, *machine.nodes)
    until("all agents have worked", lambda: all(map(agents.has_network, machine.nodes)))
    print(f"  networks {time.monotonic() - since:.0f} s after the API server's first answer")
    heals(product, since)
    until("the authorizer is ready", authorizer.is_ready)
    agents_are_held(agents)


@pytest.mark.parametrize("halves", ["the authorizer", "both halves"])
def test_agents_begin_anew_while_nobody_answers(
    agents: Agents, product: Product, authorizer: Authorizer, halves: str
) -> None:
    machine, node = agents.machine, agents.node
    authorizer.stop()
    if halves == "both halves":
        run_servers(product, False)
        machine.kubectl("delete", "pods", "-n", NAMESPACE, "--all", "--force")
        until("no server runs", lambda: not product.pods())
    try:
        since = time.monotonic()
        reads_are_held(agents, NOBODY)
        agents.begin_anew(node)
        assert not agents.has_network(node)
        # The kubelet waits longer each time that a container ends.
        until("the agents have set all up", lambda: agents.has_network(node))
        print(f"  {halves} away: agents back after {time.monotonic() - since:.0f} s")
        time.sleep(max(0, AWAY - (time.monotonic() - since)))
        reads_are_held(agents, NOBODY)
        turn = agents.turn(node)
        until("the agent works", lambda: agents.turn(node) > turn)
        until("all nodes are ready", lambda: not not_ready(machine), 30)
    finally:
        authorizer.start()
        run_servers(product, True)
        product.ready()
    agents_are_held(agents)

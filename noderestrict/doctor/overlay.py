"""Which overlay is installed, and what would be rendered for it now."""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.workloads import SERVERS, Workload, elements, serves, values, workloads
from noderestrict.render.infrastructure import ACCOUNTS
from noderestrict.render.load import Object
from noderestrict.render.manifests import Options, manifests
from noderestrict.render.names import Installation
from noderestrict.render.overlay import build, with_component
from noderestrict.render.registration import (
    MATCH_CONDITIONS_SINCE,
    OPTIONAL_FIELDS_SINCE,
    Registration,
    parse_registration,
)
from noderestrict.render.workload import AGENTS, PORT, TLS_SECRET

_DAEMON_SET = "daemonset"
_EXPECTED = "--expected-registration"


@dataclass(frozen=True, slots=True)
class Rendering:
    """What would be rendered now.

    Attributes:
        overlay: its name.
        files: rendered with the flags that the servers run with, by path.
        flags: of ``render`` that write these files, besides those of the policies.
        hidden: kinds and names of objects whose content is not known.
        release: of Helm that has installed the servers, "" for none.
    """

    overlay: str
    files: Mapping[str, str]
    flags: Sequence[str] = ()
    hidden: Collection[tuple[str, str]] = ()
    release: str = ""

    def objects(self, part: str = "install") -> list[Object]:
        """Return the objects of the overlay, but those that are hidden."""
        return self._shown(build(self.overlay, self.files, parts=[part]))

    def with_component(self, component: str, objects: Iterable[Object]) -> list[Object]:
        """Return objects of the overlay, changed by a component, likewise."""
        return self._shown(with_component(component, self.files, objects))

    def _shown(self, found: Iterable[Object]) -> list[Object]:
        return [one for one in found if (one["kind"], one["metadata"]["name"]) not in self.hidden]


async def installed_overlay(cluster: Cluster) -> str:
    """Return the overlay that is installed, "" if the servers do not run as pods.

    Raises:
        ClusterError: the installation could not be read.
    """
    return await _overlay(cluster, await workloads(cluster, cluster.options.namespace, SERVERS))


async def installed_release(cluster: Cluster) -> str:
    """Return the release of Helm that has installed the servers, "" for none.

    Raises:
        ClusterError: the servers could not be read.
    """
    servers = await workloads(cluster, cluster.options.namespace, SERVERS)
    return next((one.release for one in servers if serves(one)), "")


async def _overlay(cluster: Cluster, servers: Sequence[Workload]) -> str:
    webhooks: list[Any] = (await cluster.registration() or {}).get("webhooks") or []
    at_url = any((one.get("clientConfig") or {}).get("url") for one in webhooks)
    kinds = {one.kind for one in servers}
    if not servers:
        return "" if at_url else "self-signed"
    # While one overlay follows another, the registration says which one serves.
    if _DAEMON_SET in kinds and (at_url or len(kinds) == 1 or not webhooks):
        return "control-plane"
    commands = [command for one in servers for command in one.commands()]
    ignored = any(one.failure_policy == "Ignore" for one in expected_by(servers)[-1:])
    if ignored or any(values(command, "--mode")[-1:] == ["audit"] for command in commands):
        return "audit"
    space = f"/apis/cert-manager.io/v1/namespaces/{cluster.options.namespace}"
    issued = await cluster.find(f"{space}/certificates/{TLS_SECRET}") is not None
    return "cert-manager" if issued else "self-signed"


async def rendering(cluster: Cluster) -> Rendering | None:
    """Return what would be rendered now for the overlay that is installed.

    Returns:
        None if no workload of an overlay runs our servers.

    Raises:
        ClusterError: the installation could not be read.
    """
    found = await workloads(cluster, cluster.options.namespace, SERVERS)
    servers = [one for one in found if serves(one)]
    if not servers:
        return None
    overlay = await _overlay(cluster, servers)
    own = [one for one in servers if (one.kind == _DAEMON_SET) == (overlay == "control-plane")]
    options = _options(cluster, own)
    files = await asyncio.to_thread(manifests, options)
    hidden = [("ConfigMap", AGENTS)] if cluster.options.agents.problem else []
    return Rendering(overlay, files, _flags(options), hidden, own[0].release if own else "")


def _options(cluster: Cluster, servers: Sequence[Workload]) -> Options:
    """Return what the manifests were rendered with, as far as the servers' flags show."""
    commands = [command for one in servers for command in one.commands()]
    infrastructure: tuple[str, ...] = ACCOUNTS
    version = None
    for expected in expected_by(servers)[-1:]:
        if not expected.match_conditions:
            version = MATCH_CONDITIONS_SINCE - 1
        elif not expected.optional_fields:
            version = OPTIONAL_FIELDS_SINCE - 1
        if expected.infrastructure is not None:
            infrastructure = expected.infrastructure.accounts
        elif (
            expected.match_conditions
            and expected.client_config.get("service")
            # Where nothing waits for the webhook, nothing is left out.
            and expected.failure_policy == "Fail"
        ):
            infrastructure = ()
    return Options(
        cluster.options.extra,
        tuple(_flag(commands, "--api-audiences")) or None,
        tuple(_flag(commands, "--api-server")),
        infrastructure,
        kubernetes_version=version,
        agents=cluster.options.agents.agents.all,
        agent_files=cluster.options.agents.texts,
        installation=Installation(
            namespace=cluster.options.namespace,
            registration=cluster.options.configuration,
            port=_port(commands),
        ),
    )


def _port(commands: Sequence[Sequence[str]]) -> int:
    given = _flag(commands, "--port")[-1:]
    # A server with a bad flag does not start.
    return int(given[0]) if given and given[0].isdecimal() else PORT


def _flags(options: Options) -> list[str]:
    """Return the flags of ``render`` that differ from their defaults, but for the policies."""
    given = {
        "api-audiences": ",".join(options.api_audiences or ()),
        "api-server": ",".join(one for one in options.api_servers),
        "kubernetes-version": f"1.{options.kubernetes_version}",
        "infrastructure-accounts": ",".join(options.infrastructure),
        "namespace": options.installation.namespace,
        "webhook-name": options.installation.registration,
        "port": str(options.installation.port),
    }
    plain = Options()
    changed = {
        "api-audiences": options.api_audiences != plain.api_audiences,
        "api-server": options.api_servers != plain.api_servers,
        "kubernetes-version": options.kubernetes_version != plain.kubernetes_version,
        "infrastructure-accounts": options.infrastructure != plain.infrastructure,
        "namespace": options.installation.namespace != plain.installation.namespace,
        "webhook-name": options.installation.registration != plain.installation.registration,
        "port": options.installation.port != plain.installation.port,
    }
    return [f"--{name}={value}" for name, value in given.items() if changed[name]]


def _flag(commands: Sequence[Sequence[str]], flag: str) -> list[str]:
    return [one for command in commands for one in elements(values(command, flag)[-1:])]


async def expected_registration(cluster: Cluster) -> Object | None:
    """Return the registration that the servers expect, or else that of the installed overlay.

    Returns:
        None if no workload of an overlay runs our servers, or if they expect another name.

    Raises:
        ClusterError: the installation could not be read.
    """
    servers = await workloads(cluster, cluster.options.namespace, SERVERS)
    if expected := expected_by(servers):
        value = expected[-1].value(cluster.options.extra)
    else:
        wanted = await rendering(cluster)
        if wanted is None:
            return None
        (value,) = wanted.objects(part="enforce")
    return value if value["metadata"]["name"] == cluster.options.configuration else None


def expected_by(servers: Sequence[Workload]) -> list[Registration]:
    """Return the registrations that flags of servers name; the last one is expected."""
    found = []
    for server in servers:
        for command in server.commands():
            for value in values(command, _EXPECTED):
                # A server with a bad flag does not start.
                with contextlib.suppress(ValueError):
                    found.append(parse_registration(value))
    return found

"""The cluster that the checks examine."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noderestrict.api.resources import WEBHOOK_CONFIGURATIONS
from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import tree
from noderestrict.cluster.server_info import server_version
from noderestrict.doctor.agent_policies import AgentPolicies
from noderestrict.policy.extra import Extra
from noderestrict.policy.modes import ENFORCE
from noderestrict.render.registration import MATCH_CONDITIONS_SINCE, OPTIONAL_FIELDS_SINCE
from noderestrict.render.workload import NAMESPACE

#: Of the pods of our servers, whatever runs them.
LABEL = "app.kubernetes.io/part-of=noderestrict"

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Options:
    """What to examine.

    Attributes:
        configuration: name of the ValidatingWebhookConfiguration.
        connect: where the server is reachable from here, if not at the registered URL.
        server_user: user name of the server.
        node_kubeconfigs: kubeconfigs of kubelets.
        authorization_config: copy of the API server's AuthorizationConfiguration.
        extra: policy beyond the in-tree plugin, with which the manifests were rendered.
        expected_mode: mode in which every rule must run.
        metrics: where the metrics of servers are reachable from here.
        agents: that are held to their node.
        namespace: in which our servers run.
    """

    configuration: str = "noderestrict"
    connect: Address | None = None
    server_user: str = "system:serviceaccount:noderestrict:noderestrict"
    node_kubeconfigs: tuple[Path, ...] = ()
    authorization_config: Path | None = None
    extra: Extra = field(default_factory=Extra)
    expected_mode: str = ENFORCE
    metrics: tuple[Address, ...] = ()
    agents: AgentPolicies = field(default_factory=AgentPolicies)
    namespace: str = NAMESPACE

    @property
    def audited(self) -> bool:
        """Whether nothing is to be denied."""
        return self.expected_mode != ENFORCE

    @property
    def kubectl(self) -> str:
        """The command, for objects beside our servers."""
        return f"kubectl -n {self.namespace}"

    @property
    def logs(self) -> str:
        """The command that shows what our servers log."""
        return f"{self.kubectl} logs --selector {LABEL}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A live cluster, and what to examine in it.

    Attributes:
        connection: to the API server, preferably as an administrator.
        options: what to examine.
    """

    connection: Connection
    options: Options = field(default_factory=Options)

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return an object or a list, without the list items that cannot be decoded.

        Raises:
            ClusterError: it could not be read.
        """
        try:
            return tree(await self.connection.get(path, query))
        except ScanError as error:
            raise ClusterError(f"GET {path}: {error}") from None

    async def items(self, path: str, query: Mapping[str, str] | None = None) -> list[Any]:
        """Return the items of a list that can be decoded.

        Raises:
            ClusterError: it could not be read.
        """
        return (await self.read(path, query)).get("items") or []

    async def find(self, path: str) -> Any:
        """Return an object, None if it does not exist.

        Raises:
            ClusterError: it could not be read.
        """
        try:
            return await self.read(path)
        except ClusterError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def minor_before_match_conditions(self) -> int | None:
        """Return the minor version of an API server without match conditions.

        Returns:
            None if it has them, as one does whose version could not be read: most are newer, and
            the check of the version reports it.
        """
        return await self._minor_before(MATCH_CONDITIONS_SINCE)

    async def minor_to_render_for(self) -> int | None:
        """Return the minor version of an API server that does not take the usual conditions.

        Returns:
            None if it takes them, or if its version could not be read.
        """
        return await self._minor_before(OPTIONAL_FIELDS_SINCE)

    async def _minor_before(self, since: int) -> int | None:
        try:
            minor, _ = await server_version(self.connection)
        except ClusterError:
            return None
        return minor if minor < since else None

    @property
    def _registration(self) -> str:
        return WEBHOOK_CONFIGURATIONS.path("", self.options.configuration)

    async def registration(self) -> Any:
        """Return the installed ValidatingWebhookConfiguration, None if it does not exist.

        Raises:
            ClusterError: it could not be read.
        """
        return await self.find(self._registration)

    async def webhooks(self) -> list[Any]:
        """Return the webhooks of the installed ValidatingWebhookConfiguration.

        Raises:
            ClusterError: it could not be read, or does not exist.
        """
        return (await self.read(self._registration)).get("webhooks") or []

    def server(self, client_config: Mapping[str, Any]) -> tuple[str, Address | None]:
        """Return the host name that a webhook's certificate needs, and where to connect.

        Args:
            client_config: of the webhook.

        Returns:
            No address if the API server alone reaches it: a Service, or the loopback interface of
            another host than this one.

        Raises:
            ValueError: the registered URL is invalid.
        """
        if service := client_config.get("service"):
            return f"{service['name']}.{service['namespace']}.svc", self.options.connect
        url = urlsplit(client_config["url"])
        host, port = url.hostname or "", url.port
        if self.options.connect or not _is_loopback(host) or _is_loopback(self.connection.host):
            return host, self.options.connect or (host, 443 if port is None else port)
        return host, None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

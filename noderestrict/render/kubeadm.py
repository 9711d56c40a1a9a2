"""kubeadm's ClusterConfiguration: what it writes into the static pods of API servers.

``kubeadm upgrade`` and ``kubeadm join`` write these pods anew, so that whatever is missing here is
lost then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from noderestrict.policy.features import OFFLINE_MINOR, parse_version
from noderestrict.render.load import Object

_GROUP = "kubeadm.k8s.io/"
_DOMAIN = "cluster.local"
#: Before it, arguments were a mapping.
_MAPPINGS = "v1beta3"


@dataclass(frozen=True, slots=True)
class Kubeadm:
    """The configuration of a cluster.

    Attributes:
        cluster: ClusterConfiguration.
        endpoint: address and port of the API server beside kubeadm, None if kubeadm is to find out.
    """

    cluster: Object
    endpoint: tuple[str, int] | None = None

    @property
    def version(self) -> str:
        """The version of kubeadm's API."""
        return str(self.cluster["apiVersion"]).removeprefix(_GROUP)

    def minor(self) -> int:
        """Return the Kubernetes version, 1.``minor``; that of offline use if none is given.

        Raises:
            ValueError: the version is unknown.
        """
        given = self.cluster.get("kubernetesVersion")
        return parse_version(str(given)) if given else OFFLINE_MINOR

    def _section(self, name: str) -> Object:
        found = self.cluster.get(name) or {}
        if not isinstance(found, dict):
            raise ValueError(f"{name} is no object")  # noqa: TRY004 (it is input)
        return found

    def arguments(self) -> dict[str, list[str]]:
        """Return the values of the API server's extra arguments, by name.

        Raises:
            ValueError: they are no arguments.
        """
        given = self._section("apiServer").get("extraArgs") or {}
        found: dict[str, list[str]] = {}
        try:
            if isinstance(given, Mapping):
                pairs = [(str(name), str(value)) for name, value in given.items()]
            else:
                pairs = [(str(one["name"]), str(one.get("value", ""))) for one in given]
        except (AttributeError, KeyError, TypeError):
            raise ValueError("apiServer.extraArgs are no arguments") from None
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        return found

    def api_audiences(self) -> tuple[str, ...]:
        """Return the API server's audiences: by default its issuers.

        Raises:
            ValueError: arguments or network are unusable.
        """
        arguments = self.arguments()
        if given := arguments.get("api-audiences"):
            return tuple(one for text in given for one in text.split(",") if one)
        domain = self._section("networking").get("dnsDomain") or _DOMAIN
        issuers = arguments.get("service-account-issuer")
        return tuple(issuers or (f"https://kubernetes.default.svc.{domain}",))

    def with_arguments(
        self, flags: Mapping[str, str], dropped: Iterable[str], folder: str
    ) -> Object:
        """Return the ClusterConfiguration with flags of the API server, and a folder for its files.

        Args:
            flags: without dashes; they replace arguments of the same name.
            dropped: names of arguments to leave out.
            folder: mounted at the same path in the API server's pod.

        Raises:
            ValueError: arguments or volumes are unusable.
        """
        arguments = self.arguments()
        for name in dropped:
            arguments.pop(name, None)
        arguments |= {name: [value] for name, value in flags.items()}
        written: object = {name: values[-1] for name, values in arguments.items()}
        if self.version != _MAPPINGS:
            written = [
                {"name": name, "value": value}
                for name, values in arguments.items()
                for value in values
            ]
        server = dict(self._section("apiServer"))
        volumes = server.get("extraVolumes") or []
        if not isinstance(volumes, list) or not all(isinstance(one, dict) for one in volumes):
            raise ValueError("apiServer.extraVolumes are no volumes")
        volumes = [one for one in volumes if one.get("name") != _VOLUME]
        volume = {
            "name": _VOLUME,
            "hostPath": folder,
            "mountPath": folder,
            "readOnly": True,
            "pathType": "Directory",
        }
        server |= {"extraArgs": written, "extraVolumes": [*volumes, volume]}
        return {**self.cluster, "apiServer": server}

    def init(self) -> list[Object]:
        """Return what says where the API server beside kubeadm is; nothing if that is unknown."""
        if self.endpoint is None:
            return []
        address, port = self.endpoint
        return [
            {
                "apiVersion": self.cluster["apiVersion"],
                "kind": "InitConfiguration",
                "localAPIEndpoint": {"advertiseAddress": address, "bindPort": port},
            }
        ]


_VOLUME = "noderestrict"
#: Where there is no configuration to add to.
BARE = Kubeadm({"apiVersion": f"{_GROUP}v1beta4", "kind": "ClusterConfiguration"})


def find_cluster_configuration(documents: Iterable[Any]) -> Object:
    """Return the ClusterConfiguration among documents, or in a ConfigMap ``kubeadm-config``.

    Args:
        documents: that YAML holds.

    Raises:
        ValueError: there is none.
    """
    for one in documents:
        if not isinstance(one, dict):
            continue
        version = str(one.get("apiVersion"))
        if one.get("kind") == "ClusterConfiguration" and version.startswith(_GROUP):
            return one
    raise ValueError(f"there is no ClusterConfiguration of {_GROUP}")

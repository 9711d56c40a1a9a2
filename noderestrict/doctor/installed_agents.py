"""The policies of agents that servers in pods run with."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from noderestrict.agents.load import PolicyFileError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.doctor.agent_policies import AgentPolicies, policies
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.servers import serving
from noderestrict.doctor.workloads import words

_FLAG, _VARIABLE = "--agents", "NODERESTRICT_AGENTS"


@dataclass(frozen=True, slots=True)
class _File:
    """A policy file in a container.

    Attributes:
        path: in the container.
        config_map: that it is mounted from, "" if it is not.
        key: of the ConfigMap.
    """

    path: str
    config_map: str = ""
    key: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name


async def with_installed_agents(connection: Connection, options: Options) -> Options:
    """Return options with the policies of the cluster's servers, where none are given."""
    if options.agents:
        return options
    found = await installed_policies(Cluster(connection, options))
    return replace(options, agents=found)


async def installed_policies(cluster: Cluster) -> AgentPolicies:
    """Return the policies that servers in pods run with; what hides them is its ``problem``."""
    try:
        files = list(dict.fromkeys(await _files(cluster)))
    except ClusterError as error:
        return AgentPolicies(problem=str(error))
    if not files:
        return AgentPolicies()
    unseen = AgentPolicies(texts={one.name: "" for one in files})
    texts: dict[str, str] = {}
    origins, saving = [], []
    for file in files:
        if not file.config_map:
            return replace(unseen, problem=f"{file.path} of the servers is in no ConfigMap")
        namespace, _, name = file.config_map.partition("/")
        try:
            found = await cluster.find(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        except ClusterError as error:
            return replace(unseen, problem=str(error))
        text = ((found or {}).get("data") or {}).get(file.key)
        if text is None:
            lacks = f"has no {file.key}" if found else "does not exist"
            return replace(unseen, problem=f"ConfigMap {file.config_map} {lacks}")
        texts[file.name] = text
        origins.append(f"ConfigMap {file.config_map}")
        saving.append(_saving(namespace, name, file))
    try:
        read = policies({name: text.encode() for name, text in texts.items()})
    except PolicyFileError as error:
        return replace(unseen, problem=f"{', '.join(dict.fromkeys(origins))}: {error}")
    return replace(read, origin=", ".join(dict.fromkeys(origins)), saving=tuple(saving))


def _saving(namespace: str, name: str, file: _File) -> str:
    key = file.key.replace(".", r"\.")
    words = [
        "kubectl",
        "-n",
        namespace,
        "get",
        "configmap",
        name,
        "-o",
        f"jsonpath={{.data.{key}}}",
    ]
    return f"{shlex.join(words)} > {shlex.quote(file.name)}"


async def _files(cluster: Cluster) -> list[_File]:
    """Return the policy files of all servers that run in pods."""
    return [
        _mounted(path, workload.namespace, workload.pod_spec, container)
        for workload in await serving(cluster)
        for container in workload.pod_spec.get("containers") or ()
        for path in _paths(container)
    ]


def _paths(container: Mapping[str, Any]) -> Iterator[str]:
    given = words(container)
    if not any(word.partition("=")[0] == _FLAG for word in given):
        for variable in container.get("env") or ():
            if variable.get("name") == _VARIABLE:
                yield from filter(None, str(variable.get("value") or "").split(","))
        return
    follows = False
    for word in given:
        name, equals, value = word.partition("=")
        if name == _FLAG:
            # Without an equals sign, it takes all words up to the next flag.
            follows = not equals
            if equals:
                yield value
        elif word.startswith("-"):
            follows = False
        elif follows:
            yield word


def _mounted(
    path: str, namespace: str, pod_spec: Mapping[str, Any], container: Mapping[str, Any]
) -> _File:
    """Return a file with the key of the ConfigMap that it is mounted from."""
    volumes = {one.get("name"): one for one in pod_spec.get("volumes") or ()}
    for mount in container.get("volumeMounts") or ():
        at, sub_path = str(mount.get("mountPath")), mount.get("subPath")
        config_map = (volumes.get(mount.get("name")) or {}).get("configMap")
        if not config_map:
            continue
        if sub_path and at == path:
            inside = str(sub_path)
        elif not sub_path and PurePosixPath(path).is_relative_to(at):
            inside = str(PurePosixPath(path).relative_to(at))
        else:
            continue
        items: Sequence[Mapping[str, str]] = config_map.get("items") or ()
        keys = {one["path"]: one["key"] for one in items} if items else {inside: inside}
        if inside in keys:
            return _File(path, f"{namespace}/{config_map.get('name')}", keys[inside])
    return _File(path)

"""What runs in the cluster: the manifests that need flags, names or the version."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from noderestrict.render.load import Object, documents
from noderestrict.render.names import IMAGE as IMAGE
from noderestrict.render.names import LOOPBACK, Installation, certificate_names, dns_names
from noderestrict.render.names import NAMESPACE as NAMESPACE
from noderestrict.render.names import PORT as PORT

TLS_SECRET = "noderestrict-tls"  # noqa: S105 (a name)
CA_SECRET = "noderestrict-ca"  # noqa: S105 (a name)
RENEWAL, NEW_CA = "noderestrict-renewal", "noderestrict-new-ca"
#: ConfigMap with the policies of agents, and where it is mounted.
AGENTS, _AGENTS_FOLDER = "noderestrict-agents", "/etc/noderestrict/agents"
_NONE: Mapping[str, str] = {}
_DEFAULT = Installation()
CONTROL_PLANE = "noderestrict-control-plane"
#: Label and taint of dedicated nodes, for clusters without control-plane nodes.
DEDICATED_NODES = "node-restriction.kubernetes.io/noderestrict"


def deployment(
    flags: Sequence[str] = (),
    agent_files: Mapping[str, str] = _NONE,
    installation: Installation = _DEFAULT,
) -> Object:
    """Return the Deployment of the servers behind a Service.

    Args:
        flags: of ``serve``, beside those that every server of this kind has.
        agent_files: the policy files: names and texts.
        installation: what it has of its own.
    """
    return _completed("deployment.yaml", flags, agent_files, installation)


def daemon_set(
    flags: Sequence[str] = (),
    agent_files: Mapping[str, str] = _NONE,
    installation: Installation = _DEFAULT,
) -> Object:
    """Return the DaemonSet of the servers beside API servers, reached on loopback.

    Args:
        flags: of ``serve``, beside those that every server of this kind has.
        agent_files: the policy files: names and texts.
        installation: what it has of its own.
    """
    return _completed("daemon-set.yaml", flags, agent_files, installation)


def _completed(
    path: str, flags: Sequence[str], agent_files: Mapping[str, str], installation: Installation
) -> Object:
    (value,) = documents(path, installation)
    spec = value["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container["args"] += flags
    if agent_files:
        container["args"] += [f"--agents={_AGENTS_FOLDER}/{name}" for name in agent_files]
        mount = {"name": "agents", "mountPath": _AGENTS_FOLDER, "readOnly": True}
        container["volumeMounts"].append(mount)
        spec["volumes"].append({"name": "agents", "configMap": {"name": AGENTS}})
    return value


def agent_policies(
    agent_files: Mapping[str, str], installation: Installation = _DEFAULT
) -> list[Object]:
    """Return the ConfigMap with the policies of agents, none without any.

    Args:
        agent_files: the policy files: names and texts.
        installation: what it has of its own.
    """
    if not agent_files:
        return []
    metadata = {"name": AGENTS, "namespace": installation.namespace}
    value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    return [{**value, "data": dict(agent_files)}]


def renewal(
    flags: Sequence[str], *, on_host: bool, installation: Installation = _DEFAULT
) -> list[Object]:
    """Return the CronJob that renews the certificate, and what it needs.

    Args:
        flags: of ``certs``, beside those that every job of this kind has.
        on_host: whether it uses the network of its node, as its servers do.
        installation: what it has of its own.
    """
    *others, job = documents("renewal.yaml", installation)
    _certify(job["spec"]["jobTemplate"]["spec"], flags, installation, on_host=on_host)
    return [*others, job]


def new_ca(
    flags: Sequence[str], *, on_host: bool, installation: Installation = _DEFAULT
) -> list[Object]:
    """Return the Job that replaces the CA, and what it needs; no overlay includes it.

    The template of a Job cannot change, so the name of the Job depends on it.

    Args:
        flags: of ``certs``, beside those that every job of this kind has.
        on_host: whether it uses the network of its node, as its servers do.
        installation: what it has of its own.
    """
    *others, job = documents("new-ca.yaml", installation)
    _certify(job["spec"], flags, installation, on_host=on_host)
    digest = hashlib.sha256(json.dumps(job["spec"], sort_keys=True).encode()).hexdigest()
    job["metadata"]["name"] = f"{NEW_CA}-{digest[:8]}"
    return [*others, job]


def _certify(
    job: Object, flags: Sequence[str], installation: Installation, *, on_host: bool
) -> None:
    """Complete the pod of a Job's spec."""
    spec = job["template"]["spec"]
    if on_host:
        spec |= {"hostNetwork": True, "dnsPolicy": "Default"}
    (container,) = spec["containers"]
    if on_host:
        container["env"] = _host_address()
    place = container["args"].index("--dns-names=")
    container["args"][place] += ",".join(certificate_names(installation.namespace))
    container["args"] += flags


def _host_address() -> list[Object]:
    """Return the variable that the addresses of API servers may use."""
    (value,) = documents("daemon-set.yaml")
    found: list[Object] = value["spec"]["template"]["spec"]["containers"][0]["env"]
    return found


def cert_manager(installation: Installation = _DEFAULT) -> list[Object]:
    """Return what makes cert-manager issue the certificate, with the CA that is kept.

    Args:
        installation: what it has of its own.
    """
    issuer, certificate = documents("cert-manager.yaml", installation)
    names = list(dns_names(installation.namespace))
    certificate["spec"] |= {"dnsNames": names, "ipAddresses": [LOOPBACK]}
    return [issuer, certificate]

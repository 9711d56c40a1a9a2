"""What runs in the cluster: the manifests that need flags, names or the version."""

from collections.abc import Sequence

from noderestrict import __version__
from noderestrict.render.load import Object, documents

NAMESPACE = "noderestrict"
IMAGE = f"noderestrict:{__version__}"
PORT = 8443
TLS_SECRET = "noderestrict-tls"  # noqa: S105 (a name)
CA_SECRET = "noderestrict-ca"  # noqa: S105 (a name)
RENEWAL, NEW_CA = "noderestrict-renewal", "noderestrict-new-ca"
#: Label and taint of dedicated nodes, for clusters without control-plane nodes.
DEDICATED_NODES = "node-restriction.kubernetes.io/noderestrict"


def deployment(flags: Sequence[str] = ()) -> Object:
    """Return the Deployment of the servers behind a Service.

    Args:
        flags: of ``serve``, beside those that every server of this kind has.
    """
    return _completed("deployment.yaml", flags)


def daemon_set(flags: Sequence[str] = ()) -> Object:
    """Return the DaemonSet of the servers beside API servers, reached on loopback.

    Args:
        flags: of ``serve``, beside those that every server of this kind has.
    """
    return _completed("daemon-set.yaml", flags)


def _completed(path: str, flags: Sequence[str]) -> Object:
    (value,) = documents(path)
    (container,) = value["spec"]["template"]["spec"]["containers"]
    container["image"] = IMAGE
    container["args"] += flags
    return value


def renewal(names: Sequence[str]) -> list[Object]:
    """Return the CronJob that renews the certificate, and what it needs.

    Args:
        names: DNS names and addresses of the certificate.
    """
    *others, job = documents("renewal.yaml")
    _certify(job["spec"]["jobTemplate"]["spec"], names)
    return [*others, job]


def new_ca(names: Sequence[str], served_at: str | None) -> list[Object]:
    """Return the Job that replaces the CA, and what it needs; no overlay includes it.

    Args:
        names: DNS names and addresses of the certificate.
        served_at: where the Job reaches the server, None if it cannot.
    """
    *others, job = documents("new-ca.yaml")
    _certify(job["spec"], names, *([f"--served-at={served_at}"] if served_at else []))
    return [*others, job]


def _certify(job: Object, names: Sequence[str], *flags: str) -> None:
    """Complete the container of a Job's spec."""
    (container,) = job["template"]["spec"]["containers"]
    container["image"] = IMAGE
    place = container["args"].index("--dns-names=")
    container["args"][place] += ",".join(names)
    container["args"] += flags

"""The files that make API servers present client certificates to our webhooks.

By default an API server presents none. Its AdmissionConfiguration names one for each host that it
calls. The certificate must be signed by a CA that signs for API servers only: the cluster's own CA
signs for every kubelet as well.
"""

from collections.abc import Sequence

from noderestrict.render.admission_configuration import admission_configuration
from noderestrict.render.authorizer import kubeadm_configuration
from noderestrict.render.load import Object
from noderestrict.render.names import LOOPBACK, Installation, dns_names

#: Where the API server finds these files.
FOLDER = "/etc/kubernetes/noderestrict"
#: kubeadm's certificate of API servers for aggregation; its CA signs nothing else.
CERTIFICATE, KEY = (f"/etc/kubernetes/pki/front-proxy-client.{end}" for end in ("crt", "key"))
_DEFAULT = Installation()


def hosts_of(installation: Installation) -> tuple[str, ...]:
    """Return our servers as API servers call them: without a port for 443."""
    return dns_names(installation.namespace)[0], f"{LOOPBACK}:{installation.port}"


def client_kubeconfig(
    certificate: str = CERTIFICATE, key: str = KEY, hosts: Sequence[str] = hosts_of(_DEFAULT)
) -> Object:
    """Return the kubeconfig whose users are the hosts that get a client certificate.

    Args:
        certificate: path of the client certificate on the API server's machine.
        key: path of its key.
        hosts: ``SERVICE.NAMESPACE.svc``, or the host of a URL, with its port unless it is 443.
            Other webhooks get no certificate.
    """
    user = {"client-certificate": certificate, "client-key": key}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": host, "user": dict(user)} for host in hosts],
    }


def api_server_files(installation: Installation = _DEFAULT) -> dict[str, Object]:
    """Return the files for FOLDER on each control-plane node, and kubeadm's patch, by name.

    Args:
        installation: whose servers the API server calls.
    """
    flags = {"admission-control-config-file": f"{FOLDER}/admission.yaml"}
    return {
        "admission.yaml": admission_configuration(kubeconfig=f"{FOLDER}/webhooks.kubeconfig"),
        "webhooks.kubeconfig": client_kubeconfig(hosts=hosts_of(installation)),
        "kubeadm.yaml": kubeadm_configuration(flags, FOLDER),
    }

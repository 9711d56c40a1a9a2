"""The files that make API servers present client certificates to our webhooks.

By default an API server presents none. Its AdmissionConfiguration names one for each host that it
calls. The certificate must be signed by a CA that signs for API servers only: the cluster's own CA
signs for every kubelet as well.
"""

from collections.abc import Sequence

from noderestrict.render.admission_configuration import admission_configuration
from noderestrict.render.authorizer import kubeadm_configuration
from noderestrict.render.load import Object
from noderestrict.render.registration import NAME
from noderestrict.render.workload import NAMESPACE, PORT

#: Where the API server finds these files.
FOLDER = "/etc/kubernetes/noderestrict"
#: kubeadm's certificate of API servers for aggregation; its CA signs nothing else.
CERTIFICATE, KEY = (f"/etc/kubernetes/pki/front-proxy-client.{end}" for end in ("crt", "key"))
#: As the API server calls them: without a port for 443.
HOSTS = (f"{NAME}.{NAMESPACE}.svc", f"127.0.0.1:{PORT}")


def client_kubeconfig(
    certificate: str = CERTIFICATE, key: str = KEY, hosts: Sequence[str] = HOSTS
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


def api_server_files() -> dict[str, Object]:
    """Return the files for FOLDER on each control-plane node, and kubeadm's patch, by name."""
    flags = {"admission-control-config-file": f"{FOLDER}/admission.yaml"}
    return {
        "admission.yaml": admission_configuration(kubeconfig=f"{FOLDER}/webhooks.kubeconfig"),
        "webhooks.kubeconfig": client_kubeconfig(),
        "kubeadm.yaml": kubeadm_configuration(flags, FOLDER),
    }

"""What makes the server answer only API servers, and API servers show who they are.

An API server presents no certificate to webhooks unless its AdmissionConfiguration tells it which
one, by the host that it calls. The certificate must be by a CA that signs for API servers alone:
the cluster's own CA signs for every kubelet too.
"""

from collections.abc import Sequence
from typing import Any

from noderestrict.render.authorizer import kubeadm_configuration
from noderestrict.render.registration import NAME, Object
from noderestrict.render.workload import NAMESPACE, PORT

#: Where the API server finds what is rendered for it.
FOLDER = "/etc/kubernetes/noderestrict"
#: What kubeadm makes for API servers that call others; its CA signs nothing else.
CERTIFICATE, KEY = (f"/etc/kubernetes/pki/front-proxy-client.{end}" for end in ("crt", "key"))
#: As the API server calls them: without a port for 443.
HOSTS = (f"{NAME}.{NAMESPACE}.svc", f"127.0.0.1:{PORT}")
#: The ConfigMap that an operator makes, with the CA of the API servers' certificates.
CLIENT_CA = f"{NAME}-client-ca"
_MOUNT = "/etc/noderestrict/client-ca"
_CA = "ca.crt"


def admission_configuration(kubeconfig: str) -> Object:
    """Return an AdmissionConfiguration that gives webhooks of the API client credentials.

    Args:
        kubeconfig: absolute path, on the API server's machine, of what ``client_kubeconfig`` gives.
    """
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [
            {
                "name": "ValidatingAdmissionWebhook",
                "configuration": {
                    "apiVersion": "apiserver.config.k8s.io/v1",
                    "kind": "WebhookAdmissionConfiguration",
                    "kubeConfigFile": kubeconfig,
                },
            }
        ],
    }


def client_kubeconfig(
    certificate: str = CERTIFICATE, key: str = KEY, hosts: Sequence[str] = HOSTS
) -> Object:
    """Return the kubeconfig whose users are the hosts to which an API server shows who it is.

    Args:
        certificate: path of the client certificate on the API server's machine.
        key: path of its key.
        hosts: ``SERVICE.NAMESPACE.svc``, or the host of a URL, with the port if it is not 443. To
            any other webhook nothing is presented.
    """
    user = {"client-certificate": certificate, "client-key": key}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": host, "user": dict(user)} for host in hosts],
    }


def server_patch() -> list[Object]:
    """Return the JSON patch of what runs the server: it asks clients for certificates."""
    template = "/spec/template/spec"
    container = f"{template}/containers/0"
    added: tuple[tuple[str, Any], ...] = (
        (f"{container}/args/-", f"--client-ca-file={_MOUNT}/{_CA}"),
        (
            f"{container}/volumeMounts/-",
            {"name": "client-ca", "mountPath": _MOUNT, "readOnly": True},
        ),
        # Not optional in effect: without it the server waits, and says so.
        (
            f"{template}/volumes/-",
            {"name": "client-ca", "configMap": {"name": CLIENT_CA, "optional": True}},
        ),
    )
    return [{"op": "add", "path": path, "value": value} for path, value in added]


def api_server_files() -> dict[str, Object]:
    """Return by name what belongs into FOLDER of each control-plane node, and kubeadm's patch."""
    flags = {"admission-control-config-file": f"{FOLDER}/admission.yaml"}
    return {
        "admission.yaml": admission_configuration(f"{FOLDER}/webhooks.kubeconfig"),
        "webhooks.kubeconfig": client_kubeconfig(),
        "kubeadm.yaml": kubeadm_configuration(flags, FOLDER),
    }

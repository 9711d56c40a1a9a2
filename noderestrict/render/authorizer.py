"""What makes an API server ask our authorizer.

Order: after RBAC or before it makes no difference to the outcome, since ours never denies; behind
RBAC it is asked less. The server must be up for nodes to read Secrets, so that it belongs on the
control-plane nodes.
"""

from typing import Any

Object = dict[str, Any]


def authorization_configuration(
    kubeconfig: str, *, seconds: int = 1, failure_policy: str = "NoOpinion"
) -> Object:
    """Return an AuthorizationConfiguration with RBAC and our webhook, for node users alone.

    Args:
        kubeconfig: path, on the API server's machine, of the file that names our server.
        seconds: how long answers are remembered; access is withdrawn no faster than this.
        failure_policy: ``NoOpinion`` or ``Deny``, for when no answer comes.
    """
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "RBAC", "name": "rbac"},
            {
                "type": "Webhook",
                "name": "noderestrict",
                "webhook": {
                    "authorizedTTL": f"{seconds}s",
                    "unauthorizedTTL": f"{seconds}s",
                    "timeout": "3s",
                    "subjectAccessReviewVersion": "v1",
                    "matchConditionSubjectAccessReviewVersion": "v1",
                    "failurePolicy": failure_policy,
                    "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
                    "matchConditions": [
                        {
                            "expression": "has(request.user) && has(request.groups) && "
                            "request.user.startsWith('system:node:') && "
                            "'system:nodes' in request.groups"
                        },
                        {"expression": "has(request.resourceAttributes)"},
                    ],
                },
            },
        ],
    }


def webhook_kubeconfig(url: str, certificate_authority: str) -> Object:
    """Return the kubeconfig with which an API server finds our server.

    Args:
        url: of ``/authorize``.
        certificate_authority: path of the CA of the server's certificate.
    """
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "noderestrict",
                "cluster": {"server": url, "certificate-authority": certificate_authority},
            }
        ],
        "users": [{"name": "kube-apiserver", "user": {}}],
        "contexts": [
            {
                "name": "noderestrict",
                "context": {"cluster": "noderestrict", "user": "kube-apiserver"},
            }
        ],
        "current-context": "noderestrict",
    }

"""What runs the webhook in a cluster: the pods, what they may do, and how they are reached."""

from collections.abc import Sequence
from typing import Any

from noderestrict import __version__
from noderestrict.render.dashboard import WEBHOOK
from noderestrict.render.registration import NAME, Object, cluster_role, cluster_role_binding

NAMESPACE = "noderestrict"
IMAGE = f"noderestrict:{__version__}"
TLS_SECRET = "noderestrict-tls"  # noqa: S105 (a name)
PORT, METRICS_PORT = 8443, 9090
LABELS = {"app.kubernetes.io/name": NAME}
CA_SECRET = "noderestrict-ca"  # noqa: S105 (a name)
RENEWAL, NEW_CA = "noderestrict-renewal", "noderestrict-new-ca"
#: Whose TLS key and tokens are safe: nodes cannot give themselves this label once the rule is
#: enforced, and are not scheduled to beside it.
TRUSTED_NODES = {"node-role.kubernetes.io/control-plane": ""}
#: Label and taint of nodes that are set apart where there are no control-plane nodes.
DEDICATED_NODES = "node-restriction.kubernetes.io/noderestrict"
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a path)
_TLS_PATH = "/etc/noderestrict/tls"


def _meta(name: str, **more: Any) -> Object:
    return {"name": name, "namespace": NAMESPACE, "labels": dict(LABELS), **more}


def namespace() -> Object:
    """Return the namespace; it admits pods on the host network, for the control-plane overlay."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
        },
    }


def service_account(name: str = NAME) -> list[Object]:
    """Return a service account and a Secret with a token of it.

    The token is a mounted Secret, not one that the kubelet requests: such a request waits for this
    very webhook. A node reads the Secret only while one of the pods is bound to it.
    """
    return [
        _account(name),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": _meta(
                f"{name}-token", annotations={"kubernetes.io/service-account.name": name}
            ),
        },
    ]


def _account(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(name),
        "automountServiceAccountToken": False,
    }


def rbac() -> list[Object]:
    """Return what the serving pods may do: read, and ask the authorizer."""
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    return [cluster_role(), cluster_role_binding(subject)]


def _container(name: str, arguments: list[str], **more: Any) -> Object:
    return {
        "name": name,
        "image": IMAGE,
        "args": arguments,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **more,
    }


def _secret_token(account: str) -> Object:
    return {"name": "token", "secret": {"secretName": f"{account}-token", "defaultMode": 0o440}}


# Short, and bound to the pod: gone with it. The kubelet asks for it, and so needs the webhook.
_BOUND_TOKEN: Object = {
    "name": "token",
    "projected": {
        "defaultMode": 0o440,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
        ],
    },
}


def _pod_spec(container: Object, account: str, volumes: list[Object], **more: Any) -> Object:
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        # The variables of Services would look like settings of ours.
        "enableServiceLinks": False,
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": dict(TRUSTED_NODES),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                **container,
                "volumeMounts": [
                    {"name": "token", "mountPath": _TOKEN_PATH, "readOnly": True},
                    *container.get("volumeMounts", []),
                ],
            }
        ],
        "volumes": volumes,
        **more,
    }


def _server(arguments: list[str], host: str | None = None) -> Object:
    def probe(path: str, **more: int) -> Object:
        where = {"path": path, "port": METRICS_PORT, **({"host": host} if host else {})}
        return {"httpGet": where, **more}

    metrics = f"--metrics-address={host or '0.0.0.0'}:{METRICS_PORT}"  # noqa: S104 (scraped)
    return _container(
        NAME,
        ["serve", f"--tls-dir={_TLS_PATH}", f"--port={PORT}", metrics, *arguments],
        ports=[
            {"name": "https", "containerPort": PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        livenessProbe=probe("/livez", periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        readinessProbe=probe("/readyz", periodSeconds=2, timeoutSeconds=2),
        resources={"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        volumeMounts=[{"name": "tls", "mountPath": _TLS_PATH, "readOnly": True}],
    )


# Not optional: the kubelet tries a mount again and again, and refreshes a mounted Secret rarely.
_TLS_VOLUME = {"name": "tls", "secret": {"secretName": TLS_SECRET, "defaultMode": 0o440}}
# Where nodes are not ready, because of us among others, our pods must start first.
_TOLERATIONS = [
    {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists"},
]


def deployment(flags: Sequence[str] = ()) -> Object:
    """Return two replicas on different nodes."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(LABELS)},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(NAME),
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": dict(LABELS)},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": dict(LABELS)},
                "spec": _pod_spec(
                    _server(["--tls-wait=600", *flags]),
                    NAME,
                    [_secret_token(NAME), _TLS_VOLUME],
                    terminationGracePeriodSeconds=45,
                    tolerations=_TOLERATIONS,
                    topologySpreadConstraints=[spread],
                ),
            },
        },
    }


def daemon_set(flags: Sequence[str] = ()) -> Object:
    """Return a server beside each API server, reached on loopback."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _meta(NAME),
        "spec": {
            "selector": {"matchLabels": dict(LABELS)},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": dict(LABELS)},
                "spec": _pod_spec(
                    _server(["--tls-wait=600", "--bind-address=127.0.0.1", *flags], "127.0.0.1"),
                    NAME,
                    [_secret_token(NAME), _TLS_VOLUME],
                    terminationGracePeriodSeconds=45,
                    hostNetwork=True,
                    dnsPolicy="ClusterFirstWithHostNet",
                    tolerations=[{"operator": "Exists"}],
                ),
            },
        },
    }


def service() -> Object:
    """Return the Service that the API server calls."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(NAME),
        "spec": {
            "selector": dict(LABELS),
            "ports": [
                {"name": "https", "port": 443, "targetPort": "https"},
                {"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"},
            ],
        },
    }


def disruption_budget() -> Object:
    """Return the budget that keeps one server up while nodes are drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(NAME),
        "spec": {"minAvailable": 1, "selector": {"matchLabels": dict(LABELS)}},
    }


def network_policy() -> Object:
    """Return what may reach the pods: our two ports, from anywhere.

    The API server's addresses differ in every cluster, and a wrong one would lock it.
    """
    ports = [{"protocol": "TCP", "port": port} for port in (PORT, METRICS_PORT)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(NAME),
        "spec": {
            "podSelector": {"matchLabels": dict(LABELS)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": ports}],
        },
    }


def _certificates(action: str, names: list[str], *flags: str) -> Object:
    return _container(
        "certs",
        [
            "certs",
            action,
            f"--secret={NAMESPACE}/{TLS_SECRET}",
            f"--ca-secret={NAMESPACE}/{CA_SECRET}",
            f"--dns-names={','.join(names)}",
            *flags,
        ],
    )


def _job(account: str, container: Object, token: Object) -> Object:
    """Return the spec of a job whose pods are gone once they have finished.

    A node reads what a pod on it refers to as long as the pod object is there.
    """
    spec = _pod_spec(
        container, account, [token], restartPolicy="OnFailure", tolerations=_TOLERATIONS
    )
    return {
        "backoffLimit": 5,
        "activeDeadlineSeconds": 600,
        "ttlSecondsAfterFinished": 0,
        "template": {"metadata": {"labels": {"app.kubernetes.io/name": account}}, "spec": spec},
    }


def _granted(account: str, kind: str, rules: list[Object]) -> list[Object]:
    """Return a Role or ClusterRole of an account, and its binding."""
    api = "rbac.authorization.k8s.io"
    meta = _meta(account) if kind == "Role" else {"name": account}
    return [
        {"apiVersion": f"{api}/v1", "kind": kind, "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": kind, "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
        },
    ]


def _secrets(verbs: list[str], *names: str) -> Object:
    return {"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(names),
            "verbs": verbs}  # fmt: skip


def renewal(names: list[str]) -> list[Object]:
    """Return what renews the certificate by the CA that is kept, and can change nothing else.

    Its token is a mounted Secret as the server's is, so that an expired certificate is renewed
    while no server answers.

    Args:
        names: DNS names and addresses that the certificate is for.
    """
    rules = [_secrets(["get"], CA_SECRET), _secrets(["get", "update"], TLS_SECRET)]
    return [
        *service_account(RENEWAL),
        *_granted(RENEWAL, "Role", rules),
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": _meta(RENEWAL),
            "spec": {
                "schedule": "17 3 * * *",
                "concurrencyPolicy": "Forbid",
                "successfulJobsHistoryLimit": 0,
                "failedJobsHistoryLimit": 0,
                "jobTemplate": {
                    "spec": _job(RENEWAL, _certificates("renew", names), _secret_token(RENEWAL))
                },
            },
        },
    ]


def new_ca(names: list[str], served_at: str | None) -> list[Object]:
    """Return what replaces the CA, for the time that this takes: no overlay includes it.

    It alone may change the registration. Its token is bound to its pod and lasts ten minutes.

    Args:
        names: DNS names and addresses that the certificate is for.
        served_at: where the job sees the server, or None.
    """
    registration = {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["validatingwebhookconfigurations"],
        "resourceNames": [NAME],
        "verbs": ["get", "patch"],
    }
    flags = [
        f"--webhook-configuration={NAME}",
        *([f"--served-at={served_at}"] if served_at else []),
    ]
    job = _job(NEW_CA, _certificates("rotate", names, *flags), _BOUND_TOKEN)
    # Each attempt would make another CA.
    job["backoffLimit"] = 0
    job["template"]["spec"]["restartPolicy"] = "Never"
    return [
        _account(NEW_CA),
        *_granted(NEW_CA, "Role", [_secrets(["get", "update"], CA_SECRET, TLS_SECRET)]),
        *_granted(NEW_CA, "ClusterRole", [registration]),
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": _meta(NEW_CA), "spec": job},
    ]


def cert_manager(names: list[str]) -> list[Object]:
    """Return a CA of the namespace's own, and the certificate that it signs.

    Args:
        names: DNS names that the certificate is for.
    """
    api = "cert-manager.io/v1"
    own, ca = "noderestrict-selfsigned", CA_SECRET

    def issuer(name: str, spec: Object) -> Object:
        return {"apiVersion": api, "kind": "Issuer", "metadata": _meta(name), "spec": spec}

    def certificate(name: str, by: str, **spec: Any) -> Object:
        return {
            "apiVersion": api,
            "kind": "Certificate",
            "metadata": _meta(name),
            "spec": {
                "secretName": name,
                "issuerRef": {"name": by, "kind": "Issuer"},
                "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                **spec,
            },
        }

    return [
        issuer(own, {"selfSigned": {}}),
        certificate(ca, own, isCA=True, commonName=ca, duration="87600h"),
        issuer(ca, {"ca": {"secretName": ca}}),
        certificate(TLS_SECRET, ca, dnsNames=names, usages=["server auth", "digital signature"]),
    ]


def monitoring() -> list[Object]:
    """Return what makes the Prometheus operator scrape, and alert."""

    def alert(name: str, expression: str, wait: str, severity: str, text: str) -> Object:
        return {
            "alert": name,
            "expr": expression,
            "for": wait,
            "labels": {"severity": severity},
            "annotations": {"summary": text},
        }

    day = 24 * 3600
    rules = [
        alert(
            "NoderestrictSelfTestFailed", "noderestrict_self_test_ok == 0", "1m", "critical",
            "A known-bad review was allowed.",
        ),
        alert(
            "NoderestrictDown", f'absent(up{{job="{NAME}"}} == 1)', "2m", "critical",
            "No server answers: requests of nodes are refused by failurePolicy.",
        ),
        alert(
            "NoderestrictInternalErrors", "increase(noderestrict_internal_errors_total[10m]) > 0",
            "0m", "warning", "Requests ended in an exception.",
        ),
        alert(
            "NoderestrictOverloaded", "rate(noderestrict_shed_requests_total[5m]) > 0", "5m",
            "warning", "Requests are refused for overload.",
        ),
        alert(
            "NoderestrictCertificateExpires",
            f"noderestrict_certificate_expiry_timestamp_seconds - time() < {7 * day}", "1h",
            "warning", "The served certificate expires within a week.",
        ),
        alert(
            "NoderestrictCertificateProblem", "noderestrict_certificate_problem == 1", "10m",
            "warning", "The certificate files hold a pair that cannot be served.",
        ),
        alert(
            "NoderestrictRegistrationChanged", "noderestrict_registration_differences > 0", "0m",
            "critical", "The registration is not as rendered: rules may be skipped.",
        ),
        alert(
            "NoderestrictRegistrationUnseen",
            "time() - (noderestrict_registration_checked_timestamp_seconds > 0) > 300", "5m",
            "warning", "The registration cannot be read: nobody sees whether it is as rendered.",
        ),
        alert(
            "NoderestrictStoreStale", "noderestrict_store_age_seconds > 120", "1m", "warning",
            "A store has not heard from the API server for minutes: what it allows is looked up.",
        ),
        alert(
            "NoderestrictObjectUndecodable", "noderestrict_store_undecodable_objects > 0", "5m",
            "warning", "A store lacks an object, which its log names: look-ups of it go live.",
        ),
        alert(
            "NoderestrictConfigurationRefused",
            'increase(noderestrict_config_reloads_total{result="refused"}[10m]) > 0', "0m",
            "warning", "The configuration file cannot be used: the modes stay as they were.",
        ),
        alert(
            "NoderestrictLoopHeldUp",
            "histogram_quantile(0.99, sum by (le, pod) "
            "(rate(noderestrict_event_loop_lag_seconds_bucket[5m]))) > 0.05",
            "5m", "warning", "The event loop is held up: all answers wait.",
        ),
        alert(
            "NoderestrictNotReached",
            "sum by (name) (rate(apiserver_admission_webhook_rejection_count"
            f'{{{WEBHOOK},error_type="calling_webhook_error"}}[5m])) > 0',
            "2m", "critical", "The API server gets no answer, and refuses what it would ask for.",
        ),
        alert(
            "NoderestrictPassedUnseen",
            "sum by (name) "
            f"(increase(apiserver_admission_webhook_fail_open_count{{{WEBHOOK}}}[5m])) > 0",
            "0m", "critical", "Requests passed unseen: no answer came, failurePolicy is Ignore.",
        ),
    ]  # fmt: skip
    api = "monitoring.coreos.com/v1"
    return [
        {
            "apiVersion": api,
            "kind": "ServiceMonitor",
            "metadata": _meta(NAME),
            "spec": {
                "selector": {"matchLabels": dict(LABELS)},
                "endpoints": [{"port": "metrics", "interval": "30s"}],
            },
        },
        {
            "apiVersion": api,
            "kind": "PrometheusRule",
            "metadata": _meta(NAME),
            "spec": {"groups": [{"name": NAME, "rules": rules}]},
        },
    ]

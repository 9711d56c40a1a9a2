"""The files of ``manifests/``: a base, and an overlay for each way to run."""

import json
from collections.abc import Mapping, Sequence

import yaml

from noderestrict.policy.extra import Extra
from noderestrict.render import workload
from noderestrict.render.dashboard import dashboard
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.registration import NAME, Object, webhook_configuration

_SERVICE_NAMES = [
    f"{NAME}.{workload.NAMESPACE}.svc",
    f"{NAME}.{workload.NAMESPACE}.svc.cluster.local",
]
_LOOPBACK = "127.0.0.1"
_SERVICE = {"service": {"name": NAME, "namespace": workload.NAMESPACE, "path": "/validate"}}
_HEADER = "# Made by noderestrict render; change the code, then run make manifests.\n"


def _text(objects: Sequence[Object]) -> str:
    return _HEADER + yaml.safe_dump_all(objects, sort_keys=False, width=100)


def _kustomization(*, kind: str = "Kustomization", **fields: object) -> str:
    given = {name: value for name, value in fields.items() if value}
    version = "v1alpha1" if kind == "Component" else "v1beta1"
    return _text([{"apiVersion": f"kustomize.config.k8s.io/{version}", "kind": kind, **given}])


def _inline(target: Mapping[str, str], *operations: Object) -> Object:
    return {"target": dict(target), "patch": yaml.safe_dump(list(operations), sort_keys=False)}


def _delete(kind: str, api_version: str) -> Object:
    value = {
        "$patch": "delete",
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": NAME, "namespace": workload.NAMESPACE},
    }
    return {"patch": yaml.safe_dump(value, sort_keys=False)}


def _audit(extra: Extra) -> str:
    """Return the overlay in which nothing is refused, whatever becomes of the webhook."""
    count = len(webhook_configuration(_SERVICE, extra=extra)["webhooks"])
    ignore = (
        {"op": "replace", "path": f"/webhooks/{index}/failurePolicy", "value": "Ignore"}
        for index in range(count)
    )
    return _kustomization(
        resources=["../self-signed"],
        patches=[
            _inline(
                {"kind": "Deployment", "name": NAME},
                {
                    "op": "add",
                    "path": "/spec/template/spec/containers/0/args/-",
                    "value": "--mode=audit",
                },
            ),
            _inline({"kind": "ValidatingWebhookConfiguration", "name": NAME}, *ignore),
        ],
    )


def _kind() -> str:
    """Return the overlay for a kind cluster, into which the image has been loaded."""
    never = {
        "op": "add",
        "path": "/spec/template/spec/containers/0/imagePullPolicy",
        "value": "Never",
    }
    return _kustomization(
        resources=["../self-signed"],
        patches=[
            _inline({"kind": "Deployment", "name": NAME}, never),
            _inline({"kind": "Job", "name": workload.CERTS_JOB}, never),
            _inline(
                {"kind": "CronJob", "name": workload.CERTS_JOB},
                {**never, "path": "/spec/jobTemplate" + never["path"]},
            ),
        ],
    )


def manifests(extra: Extra | None = None) -> dict[str, str]:
    """Return the content of every file, by its path under ``manifests/``.

    Args:
        extra: policy beyond the in-tree plugin, which both the server and its registration need.
    """
    extra = extra or Extra()
    base = {
        "namespace.yaml": [workload.namespace()],
        "service-account.yaml": workload.service_account(),
        "rbac.yaml": workload.rbac(),
        "deployment.yaml": [workload.deployment(policy_flags(extra))],
        "service.yaml": [workload.service()],
        "disruption-budget.yaml": [workload.disruption_budget()],
        "network-policy.yaml": [workload.network_policy()],
    }
    inject = {"cert-manager.io/inject-ca-from": f"{workload.NAMESPACE}/{workload.TLS_SECRET}"}
    overlays: dict[str, dict[str, list[Object]]] = {
        "cert-manager": {
            "certificates.yaml": workload.cert_manager(_SERVICE_NAMES),
            "webhook.yaml": [webhook_configuration(_SERVICE, annotations=inject, extra=extra)],
        },
        "self-signed": {
            "certificates.yaml": workload.certificate_jobs(
                _SERVICE_NAMES, f"{_SERVICE_NAMES[0]}:443"
            ),
            "webhook.yaml": [webhook_configuration(_SERVICE, extra=extra)],
        },
        "control-plane": {
            # The jobs run anywhere, and see no loopback of a control-plane node.
            "certificates.yaml": workload.certificate_jobs([_LOOPBACK, "localhost"], None),
            "daemon-set.yaml": [workload.daemon_set(policy_flags(extra))],
            "webhook.yaml": [
                webhook_configuration(
                    {"url": f"https://{_LOOPBACK}:{workload.PORT}/validate"}, extra=extra
                )
            ],
        },
    }
    files = {f"base/{name}": _text(objects) for name, objects in base.items()}
    files["base/kustomization.yaml"] = _kustomization(resources=sorted(base))
    for overlay, parts in overlays.items():
        files |= {f"overlays/{overlay}/{name}": _text(objects) for name, objects in parts.items()}
        patches: list[Object] = []
        if overlay == "control-plane":
            patches = [
                _delete("Deployment", "apps/v1"),
                _delete("Service", "v1"),
                _delete("PodDisruptionBudget", "policy/v1"),
                _delete("NetworkPolicy", "networking.k8s.io/v1"),
            ]
        files[f"overlays/{overlay}/kustomization.yaml"] = _kustomization(
            resources=["../../base", *sorted(parts)], patches=patches
        )
    files["overlays/audit/kustomization.yaml"] = _audit(extra)
    files["overlays/kind/kustomization.yaml"] = _kind()
    files["components/monitoring/monitoring.yaml"] = _text(workload.monitoring())
    # Grafana's sidecar loads dashboards from ConfigMaps with this label.
    files["components/monitoring/dashboard.json"] = json.dumps(dashboard(), indent=2) + "\n"
    files["components/monitoring/kustomization.yaml"] = _kustomization(
        kind="Component",
        resources=["monitoring.yaml"],
        configMapGenerator=[
            {
                "name": "noderestrict-dashboard",
                "namespace": workload.NAMESPACE,
                "files": ["dashboard.json"],
                "options": {"labels": {"grafana_dashboard": "1"}, "disableNameSuffixHash": True},
            }
        ],
    )
    return files

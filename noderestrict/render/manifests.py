"""The files of ``manifests/``: a base, and an overlay for each way to run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import yaml

from noderestrict.policy.extra import Extra
from noderestrict.render import client_verification, workload
from noderestrict.render.dashboard import dashboard
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.registration import NAME, Object, Registration, mirror_pod_policy

_SERVICE_NAMES = [
    f"{NAME}.{workload.NAMESPACE}.svc",
    f"{NAME}.{workload.NAMESPACE}.svc.cluster.local",
]
_LOOPBACK = "127.0.0.1"
_SERVICE = Registration(
    {"service": {"name": NAME, "namespace": workload.NAMESPACE, "path": "/validate"}}
)
_HOSTS = Registration({"url": f"https://{_LOOPBACK}:{workload.PORT}/validate"})
_HOST_NAMES = [_LOOPBACK, "localhost"]
_HEADER = "# Made by noderestrict render; change the code, then run make manifests.\n"


class _Dumper(yaml.SafeDumper):
    """Writes YAML for people: no anchors, and blocks for text of several lines."""

    def ignore_aliases(self, _data: object) -> bool:
        """Write each value where it is used."""
        return True

    def text(self, value: str) -> yaml.Node:
        """Return a text as it is to be written."""
        style = "|" if "\n" in value else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _Dumper.text)


def _text(objects: Sequence[Object]) -> str:
    return _HEADER + yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=100)


def _kustomization(*, kind: str = "Kustomization", **fields: object) -> str:
    given = {name: value for name, value in fields.items() if value}
    version = "v1alpha1" if kind == "Component" else "v1beta1"
    return _text([{"apiVersion": f"kustomize.config.k8s.io/{version}", "kind": kind, **given}])


def _inline(target: Mapping[str, str], *operations: Object) -> Object:
    return {"target": dict(target), "patch": yaml.safe_dump(list(operations), sort_keys=False)}


def _delete(kind: str, api_version: str, name: str = NAME) -> Object:
    value = {
        "$patch": "delete",
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": workload.NAMESPACE},
    }
    return {"patch": yaml.safe_dump(value, sort_keys=False)}


def _audit(extra: Extra) -> str:
    """Return the overlay in which nothing is refused, whatever becomes of the webhook.

    Any node can make itself a trusted one there, by a label or by a pod: there is no CA to steal,
    and nobody who may renew anything.
    """
    audited = replace(_SERVICE, failure_policy="Ignore")
    count = len(audited.value(extra)["webhooks"])
    ignore = (
        {"op": "replace", "path": f"/webhooks/{index}/failurePolicy", "value": "Ignore"}
        for index in range(count)
    )
    arguments = (
        {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": argument}
        for argument in ("--mode=audit", audited.flag())
    )
    return _kustomization(
        resources=["../self-signed"],
        patches=[
            _inline({"kind": "Deployment", "name": NAME}, *arguments),
            _inline({"kind": "ValidatingWebhookConfiguration", "name": NAME}, *ignore),
            *(
                _delete(value["kind"], value["apiVersion"], value["metadata"]["name"])
                for value in workload.renewal(_SERVICE_NAMES)
            ),
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
            _inline(
                {"kind": "CronJob", "name": workload.RENEWAL},
                {**never, "path": "/spec/jobTemplate" + never["path"]},
            ),
        ],
    )


def _dedicated_nodes() -> str:
    """Return the component for clusters without control-plane nodes: nodes that are set apart."""

    def moved(spec: str) -> list[Object]:
        toleration = {"key": workload.DEDICATED_NODES, "operator": "Exists"}
        return [
            {
                "op": "replace",
                "path": f"{spec}/nodeSelector",
                "value": {workload.DEDICATED_NODES: "trusted"},
            },
            {"op": "add", "path": f"{spec}/tolerations/-", "value": toleration},
        ]

    return _kustomization(
        kind="Component",
        patches=[
            _inline({"kind": "Deployment", "name": NAME}, *moved("/spec/template/spec")),
            _inline(
                {"kind": "CronJob", "name": workload.RENEWAL},
                *moved("/spec/jobTemplate/spec/template/spec"),
            ),
        ],
    )


def manifests(
    extra: Extra | None = None, api_audiences: Sequence[str] | None = None
) -> dict[str, str]:
    """Return the content of every file, by its path under ``manifests/``.

    Args:
        extra: policy beyond the in-tree plugin, which both the server and its registration need.
        api_audiences: of the API server; None leaves them to the server to learn.
    """
    extra = extra or Extra()
    flags = list(policy_flags(extra))
    if api_audiences:
        flags.append(f"--api-audiences={','.join(api_audiences)}")
    base = {
        "namespace.yaml": [workload.namespace()],
        "service-account.yaml": workload.service_account(),
        "rbac.yaml": workload.rbac(),
        "deployment.yaml": [workload.deployment([_SERVICE.flag(), *flags])],
        "service.yaml": [workload.service()],
        "disruption-budget.yaml": [workload.disruption_budget()],
        "network-policy.yaml": [workload.network_policy()],
    }
    inject = {"cert-manager.io/inject-ca-from": f"{workload.NAMESPACE}/{workload.TLS_SECRET}"}
    overlays: dict[str, dict[str, list[Object]]] = {
        "cert-manager": {
            "certificates.yaml": workload.cert_manager(_SERVICE_NAMES),
            "webhook.yaml": [_SERVICE.value(extra, inject)],
        },
        "self-signed": {
            "certificates.yaml": workload.renewal(_SERVICE_NAMES),
            "webhook.yaml": [_SERVICE.value(extra)],
        },
        "control-plane": {
            "certificates.yaml": workload.renewal(_HOST_NAMES),
            "daemon-set.yaml": [workload.daemon_set([_HOSTS.flag(), *flags])],
            "webhook.yaml": [_HOSTS.value(extra)],
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
    files["components/dedicated-nodes/kustomization.yaml"] = _dedicated_nodes()
    files["components/mirror-pods/policy.yaml"] = _text(mirror_pod_policy(workload.NAMESPACE))
    files["components/mirror-pods/kustomization.yaml"] = _kustomization(
        kind="Component", resources=["policy.yaml"]
    )
    # Applied for the time of the change alone.
    served_at = f"{_SERVICE_NAMES[0]}:443"
    files["overlays/self-signed/new-ca.yaml"] = _text(workload.new_ca(_SERVICE_NAMES, served_at))
    # A pod sees no loopback of a control-plane node.
    files["overlays/control-plane/new-ca.yaml"] = _text(workload.new_ca(_HOST_NAMES, None))
    component = "components/client-verification"
    files[f"{component}/kustomization.yaml"] = _kustomization(
        kind="Component",
        patches=[
            _inline({"kind": kind, "name": NAME}, *client_verification.server_patch())
            for kind in ("Deployment", "DaemonSet")
        ],
    )
    files |= {
        f"{component}/api-server/{name}": _text([value])
        for name, value in client_verification.api_server_files().items()
    }
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

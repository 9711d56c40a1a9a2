"""What API servers fill in where an object says nothing, and what they assign.

The sources are pkg/apis/*/v1/defaults.go of Kubernetes.
"""

from collections.abc import Callable, Mapping
from typing import Any

#: A value, or how it follows from the object that it belongs to; a mapping or a list of one mapping
#: for what is inside of a field that is there.
Schema = Mapping[str, Any]


def completed(value: Any, kind: str) -> Any:
    """Return an object with the defaults of its kind, and without what API servers assign.

    Args:
        value: of the API, without empty fields.
        kind: such as ``Deployment``; of one without a schema nothing is changed.
    """
    schema = _KINDS.get(kind, {})
    # An empty one has been left out.
    found = _completed({"spec": {}, **value} if "spec" in schema else value, schema)
    for path in _ASSIGNED.get(kind, ()):
        *parents, last = path
        inner = found
        for parent in parents:
            inner = inner.get(parent) or {}
        inner.pop(last, None)
    return found


def is_known(kind: str) -> bool:
    """Tell whether the defaults of a kind are known."""
    return kind in _KINDS


def _completed(value: Any, schema: Any) -> Any:
    if isinstance(schema, list):
        return [_completed(one, schema[0]) for one in value] if isinstance(value, list) else value
    if not isinstance(value, Mapping):
        return value
    found = dict(value)
    for key, default in schema.items():
        if isinstance(default, Mapping | list):
            if key in found:
                found[key] = _completed(found[key], default)
        elif key not in found:
            given = default(value) if callable(default) else default
            if given is not None:
                found[key] = given
    return found


def _same(field: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda value: value.get(field)


_PROBE: Schema = {
    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    "httpGet": {"path": "/", "scheme": "HTTP"}, "grpc": {"service": ""},
}  # fmt: skip
_CONTAINER: Schema = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "startupProbe": _PROBE,
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "ports": [{"protocol": "TCP"}],
    "env": [{"valueFrom": {"fieldRef": {"apiVersion": "v1"}}}],
}
_POD: Schema = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": 30,
    "enableServiceLinks": True,
    "serviceAccount": _same("serviceAccountName"),
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [
        {
            "secret": {"defaultMode": 0o644},
            "configMap": {"defaultMode": 0o644},
            "projected": {"defaultMode": 0o644},
            "hostPath": {"type": ""},
        }
    ],
}
_TEMPLATE: Schema = {"spec": _POD}
_SUBJECT: Schema = {
    "apiGroup": lambda one: (
        "rbac.authorization.k8s.io" if one.get("kind") in ("User", "Group") else None
    )
}
_BINDING: Schema = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io"}, "subjects": [_SUBJECT]}
_RULES = [{"scope": "*"}]
_MATCH: Schema = {
    "matchPolicy": "Equivalent",
    "resourceRules": _RULES,
    "excludeResourceRules": _RULES,
}
_KINDS: Mapping[str, Schema] = {
    "ClusterRole": {},
    "ClusterRoleBinding": _BINDING,
    "ConfigMap": {},
    "CronJob": {
        "spec": {
            "suspend": False, "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": _TEMPLATE}},
        }
    },
    "DaemonSet": {
        "spec": {
            "revisionHistoryLimit": 10,
            "template": _TEMPLATE,
            "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
            },
        }
    },
    "Deployment": {
        "spec": {
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "template": _TEMPLATE,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
        }
    },
    "Namespace": {},
    "NetworkPolicy": {
        "spec": {
            "policyTypes": lambda spec: ["Ingress", *(["Egress"] if spec.get("egress") else [])],
            "ingress": [{"ports": [{"protocol": "TCP"}]}],
            "egress": [{"ports": [{"protocol": "TCP"}]}],
        }
    },
    "PodDisruptionBudget": {},
    "Role": {},
    "RoleBinding": _BINDING,
    "Secret": {"type": "Opaque"},
    "Service": {
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"protocol": "TCP", "targetPort": _same("port")}],
        }
    },
    "ServiceAccount": {},
    "ValidatingAdmissionPolicy": {"spec": {"failurePolicy": "Fail", "matchConstraints": _MATCH}},
    "ValidatingAdmissionPolicyBinding": {"spec": {"matchResources": _MATCH}},
    "ValidatingWebhookConfiguration": {
        "webhooks": [
            {
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 10,
                "rules": _RULES, "clientConfig": {"service": {"port": 443}},
            }
        ]
    },
}  # fmt: skip
_ASSIGNED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Namespace": (("spec",),),
    "Secret": (("data",),),
    "Service": tuple(
        ("spec", field) for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
    ),
    "ServiceAccount": (("secrets",), ("imagePullSecrets",)),
}

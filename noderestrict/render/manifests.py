"""The files of ``manifests/``: a base, overlays for each way to run, and components."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import yaml

from noderestrict.policy.extra import Extra
from noderestrict.render import workload
from noderestrict.render.client_verification import api_server_files
from noderestrict.render.load import Object, complete_files, documents, text
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.registration import NAME, Registration, mirror_pod_policy

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

    def block(self, value: str) -> yaml.Node:
        """Represent text of several lines as a block."""
        style = "|" if "\n" in value else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _Dumper.block)


def _text(objects: Sequence[Object]) -> str:
    return _HEADER + yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=100)


def _inline(target: Mapping[str, str], *operations: Object) -> Object:
    return {"target": dict(target), "patch": yaml.safe_dump(list(operations), sort_keys=False)}


def _delete(kind: str, api_version: str, name: str) -> Object:
    value = {
        "$patch": "delete",
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": workload.NAMESPACE},
    }
    return {"patch": yaml.safe_dump(value, sort_keys=False)}


def _audit(extra: Extra) -> Object:
    """Return the overlay in which nothing is denied, whatever happens to the webhook.

    Any node can pass itself off as a trusted one there, by a label or a pod: so no CA is kept, and
    no account may renew a certificate.
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
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../self-signed"],
        "patches": [
            _inline({"kind": "Deployment", "name": NAME}, *arguments),
            _inline({"kind": "ValidatingWebhookConfiguration", "name": NAME}, *ignore),
            *(
                _delete(value["kind"], value["apiVersion"], value["metadata"]["name"])
                for value in workload.renewal(_SERVICE_NAMES)
            ),
        ],
    }


def manifests(
    extra: Extra | None = None, api_audiences: Sequence[str] | None = None
) -> dict[str, str]:
    """Return the content of every file, by its path under ``manifests/``.

    Args:
        extra: policy beyond the in-tree plugin, for both the server and its registration.
        api_audiences: of the API server; None if the server is to learn them.
    """
    extra = extra or Extra()
    flags = list(policy_flags(extra))
    if api_audiences:
        flags.append(f"--api-audiences={','.join(api_audiences)}")
    inject = {"cert-manager.io/inject-ca-from": f"{workload.NAMESPACE}/{workload.TLS_SECRET}"}
    completed = {
        "base/deployment.yaml": [workload.deployment([_SERVICE.flag(), *flags])],
        "components/mirror-pods/policy.yaml": mirror_pod_policy(),
        "overlays/audit/kustomization.yaml": [_audit(extra)],
        "overlays/cert-manager/webhook.yaml": [_SERVICE.value(extra, inject)],
        "overlays/control-plane/certificates.yaml": workload.renewal(_HOST_NAMES),
        "overlays/control-plane/daemon-set.yaml": [workload.daemon_set([_HOSTS.flag(), *flags])],
        # A pod cannot reach the loopback address of a control-plane node.
        "overlays/control-plane/new-ca.yaml": workload.new_ca(_HOST_NAMES, None),
        "overlays/control-plane/webhook.yaml": [_HOSTS.value(extra)],
        "overlays/self-signed/certificates.yaml": workload.renewal(_SERVICE_NAMES),
        "overlays/self-signed/new-ca.yaml": workload.new_ca(
            _SERVICE_NAMES, f"{_SERVICE_NAMES[0]}:443"
        ),
        "overlays/self-signed/webhook.yaml": [_SERVICE.value(extra)],
    }
    completed |= {
        f"components/client-verification/api-server/{name}": [value]
        for name, value in api_server_files().items()
    }
    return {
        **{path: _as_it_is(path) for path in complete_files()},
        **{path: _text(objects) for path, objects in completed.items()},
    }


def _as_it_is(path: str) -> str:
    given = f"manifests/{path}"
    return text(given) if path.endswith(".json") else _text(documents(given))

"""The files of ``manifests/``: a base, overlays for each way to run, and components."""

import base64
import ipaddress
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import yaml

from noderestrict.agents.file import Agent
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import LATEST
from noderestrict.policy.settings import Settings
from noderestrict.render import policies, workload
from noderestrict.render.chart import chart
from noderestrict.render.client_verification import api_server_files
from noderestrict.render.dashboard import dashboard
from noderestrict.render.infrastructure import ACCOUNTS, AUDIENCES, Infrastructure
from noderestrict.render.load import Object, complete_files, documents, parsed, text
from noderestrict.render.names import LOOPBACK, Installation, certificate_names
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.registration import (
    MATCH_CONDITIONS_SINCE,
    NAME,
    NEEDED_BY_NODES,
    OPTIONAL_FIELDS_SINCE,
    Registration,
    mirror_pod_policy,
)
from noderestrict.render.written import labelled, yaml_text

#: How a pod on the host network reaches the API server beside it, without kube-proxy.
_BESIDE = "127.0.0.1:6443,[$(HOST_IP)]:6443"
#: GitOps tools apply what has a higher wave once what has a lower one is healthy.
_WAVE = {"argocd.argoproj.io/sync-wave": "1"}
#: Every API server refuses to decode it.
NO_CA = "none: see docs/install.md"
OVERLAYS = ("control-plane", "self-signed", "cert-manager", "audit")
_NO_MATCH_CONDITIONS = f"""\
# For API servers before 1.{MATCH_CONDITIONS_SINCE}, which have no match conditions. These have
# failurePolicy: Ignore, or nodes would stop with the webhook: {", ".join(sorted(NEEDED_BY_NODES))}.
# No rule on them holds while it is away. After an upgrade, render without --kubernetes-version.
"""


def _service(installation: Installation) -> Registration:
    """Return the registration of servers behind a Service."""
    service = {"name": NAME, "namespace": installation.namespace, "path": "/validate"}
    return Registration({"service": service}, name=installation.registration)


def _hosts(installation: Installation) -> Registration:
    """Return the registration of servers beside API servers."""
    url = f"https://{LOOPBACK}:{installation.port}/validate"
    return Registration({"url": url}, name=installation.registration)


HOSTS = _hosts(Installation())


def _inline(target: Mapping[str, str], *operations: Object) -> Object:
    return {"target": dict(target), "patch": yaml.safe_dump(list(operations), sort_keys=False)}


@dataclass(frozen=True, slots=True)
class Options:
    """What the manifests depend on.

    Attributes:
        extra: policy beyond the in-tree plugin, for both the server and its registration.
        api_audiences: of the API server; None if the server is to learn them.
        api_servers: HOST:PORT, how our pods reach API servers; none for the default.
        infrastructure: accounts whose token requests are left out of registrations of a Service.
        ca_bundle: PEM, for registrations; None if ``certs bootstrap`` is to put it in.
        kubernetes_version: minor version of the API servers; None if all take the conditions of
            the checked-in manifests.
        agents: that are held to their node.
        agent_files: the policy files that say so: names and texts.
        installation: what it has of its own.
    """

    extra: Extra = field(default_factory=Extra)
    api_audiences: tuple[str, ...] | None = None
    api_servers: tuple[str, ...] = ()
    infrastructure: tuple[str, ...] = ACCOUNTS
    ca_bundle: bytes | None = None
    kubernetes_version: int | None = None
    agents: tuple[Agent, ...] = ()
    agent_files: Mapping[str, str] = field(default_factory=dict)
    installation: Installation = field(default_factory=Installation)

    @property
    def match_conditions(self) -> bool:
        """Whether the API servers have match conditions."""
        minor = self.kubernetes_version
        return minor is None or minor >= MATCH_CONDITIONS_SINCE

    @property
    def optional_fields(self) -> bool:
        """Whether the API servers take optional field selection in match conditions."""
        minor = self.kubernetes_version
        return minor is None or minor >= OPTIONAL_FIELDS_SINCE

    def hosts(self) -> Registration:
        """Return the registration of servers on the hosts of API servers."""
        return self._for_version(_hosts(self.installation))

    def _for_version(self, registration: Registration) -> Registration:
        return replace(
            registration,
            match_conditions=self.match_conditions,
            optional_fields=self.optional_fields,
        )

    def service(self) -> Registration:
        """Return the registration of servers behind a Service."""
        service = self._for_version(_service(self.installation))
        if not self.match_conditions or not self.infrastructure:
            # Nothing can be left out, or is.
            return service
        audiences = self.api_audiences or AUDIENCES
        return replace(service, infrastructure=Infrastructure(self.infrastructure, audiences))

    def server_flags(self) -> list[str]:
        """Return the flags of every server."""
        flags = list(policy_flags(self.extra))
        if self.api_audiences:
            flags.append(f"--api-audiences={','.join(self.api_audiences)}")
        return flags

    def connection_flags(self, *, on_host: bool) -> list[str]:
        """Return how pods reach API servers.

        Args:
            on_host: whether they use the network of their node; others have their own loopback.
        """
        if on_host:
            return [f"--api-server={','.join(self.api_servers) or _BESIDE}"]
        remote = [one for one in self.api_servers if not is_loopback(one)]
        return [f"--api-server={','.join(remote)}"] if remote else []


def is_loopback(address: str) -> bool:
    """Tell whether HOST:PORT is on the loopback interface."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _audit(deployment: Object, enforced: str, audited: str) -> Object:
    """Return the overlay in which nothing is denied, whatever happens to the webhook.

    Any node can pass itself off as a trusted one there, by a label or a pod: so no CA is kept, and
    no account may renew a certificate.

    Args:
        deployment: that it changes.
        enforced: flag that says which registration its servers expect.
        audited: the same here.
    """
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = "/spec/template/spec/containers/0/args"
    place = container["args"].index(enforced)
    changes = (
        {"op": "replace", "path": f"{arguments}/{place}", "value": audited},
        {"op": "add", "path": f"{arguments}/-", "value": "--mode=audit"},
    )
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../../../service"],
        "patches": [_inline({"kind": "Deployment", "name": NAME}, *changes)],
    }


def all_files(options: Options | None = None) -> dict[str, str]:
    """Return the content of every file, by its path under ``manifests/``.

    Raises:
        ValueError: there are agents, but the API servers have no match conditions.
    """
    options = options or Options()
    files = manifests(options)
    # Its registration has optional fields in any case.
    return files | (_chart(options, files) if options.optional_fields else {})


def manifests(options: Options | None = None) -> dict[str, str]:
    """Return the content of every file but those of the chart, by its path under ``manifests/``.

    Raises:
        ValueError: there are agents, but the API servers have no match conditions.
    """
    options = options or Options()
    installation = options.installation
    service, hosts = options.service(), options.hosts()
    audited = replace(service, failure_policy="Ignore", infrastructure=None)
    flags = options.server_flags()
    in_pods, on_hosts = (options.connection_flags(on_host=on_host) for on_host in (False, True))
    served_at = [f"--served-at={certificate_names(installation.namespace)[0]}:443"]
    deployment = workload.deployment(
        [service.flag(), *flags, *in_pods], options.agent_files, installation
    )
    completed = {
        "components/mirror-pods/policy.yaml": mirror_pod_policy(installation),
        "service/deployment.yaml": [
            *workload.agent_policies(options.agent_files, installation),
            deployment,
        ],
        "overlays/audit/install/kustomization.yaml": [
            _audit(deployment, service.flag(), audited.flag())
        ],
        "overlays/cert-manager/install/certificates.yaml": workload.cert_manager(installation),
        "overlays/control-plane/install/certificates.yaml": workload.renewal(
            on_hosts, on_host=True, installation=installation
        ),
        "overlays/control-plane/install/daemon-set.yaml": [
            *workload.agent_policies(options.agent_files, installation),
            workload.daemon_set(
                [hosts.flag(), *flags, *on_hosts], options.agent_files, installation
            ),
        ],
        # No pod reaches the loopback address of every control-plane node.
        "overlays/control-plane/new-ca.yaml": workload.new_ca(
            on_hosts, on_host=True, installation=installation
        ),
        "overlays/self-signed/install/certificates.yaml": workload.renewal(
            in_pods, on_host=False, installation=installation
        ),
    }
    for overlay in ("self-signed", "cert-manager"):
        new_ca = workload.new_ca([*served_at, *in_pods], on_host=False, installation=installation)
        completed[f"overlays/{overlay}/new-ca.yaml"] = new_ca
    registrations = {}
    for overlay, registration in zip(OVERLAYS, (hosts, service, service, audited), strict=True):
        value = registration.value(options.extra, _WAVE, options.agents)
        _put_ca(value, options.ca_bundle)
        registrations[f"overlays/{overlay}/enforce/registration.yaml"] = labelled(
            value, installation.labels
        )
    comment = "" if options.match_conditions else _NO_MATCH_CONDITIONS
    rules = policies.Options(Settings.for_version(LATEST.minor, extra=options.extra))
    files = {
        **{path: _as_it_is(path, installation) for path in complete_files()},
        **{
            path: yaml_text(labelled(one, installation.labels) for one in objects)
            for path, objects in completed.items()
        },
        **{
            f"policies/{name}": value
            for name, value in policies.files(rules, installation.labels).items()
        },
        **{path: yaml_text([value], comment) for path, value in registrations.items()},
        **{
            f"components/client-verification/api-server/{name}": yaml_text([value])
            for name, value in api_server_files(installation).items()
        },
    }
    files["components/monitoring/dashboard.json"] = dashboard()
    for overlay, objects in leftovers(files).items():
        files[f"overlays/{overlay}/leftovers.yaml"] = yaml_text(objects)
    return files


def _chart(options: Options, files: Mapping[str, str]) -> dict[str, str]:
    """Return the files of the Helm chart.

    Args:
        options: what the manifests depend on.
        files: of the other manifests.
    """
    found = chart.files(
        options.installation,
        options.extra,
        options.agents,
        options.agent_files,
        files["components/monitoring/dashboard.json"],
        api_servers=options.api_servers,
        api_audiences=options.api_audiences or (),
        infrastructure=options.infrastructure,
    )
    return {f"chart/{path}": content for path, content in found.items()}


def _put_ca(registration: Object, bundle: bytes | None) -> None:
    """Put the CA into every webhook, or what API servers refuse: nobody could be verified."""
    for webhook in registration["webhooks"]:
        webhook["clientConfig"]["caBundle"] = (
            NO_CA if bundle is None else base64.b64encode(bundle).decode()
        )


def _as_it_is(path: str, installation: Installation) -> str:
    given = f"manifests/{path}"
    # Policies of agents are no objects, and their comments are for who edits them.
    if path.startswith("agents/"):
        return text(given)
    return yaml_text(labelled(one, installation.labels) for one in documents(given, installation))


def leftovers(files: Mapping[str, str]) -> dict[str, list[Object]]:
    """Return the objects of other overlays that each overlay leaves in the cluster.

    Those of cert-manager are not among them: only a cluster that has it knows their kinds.

    Args:
        files: of all overlays, by their paths.
    """
    installed = {overlay: _objects(files, f"overlays/{overlay}/install") for overlay in OVERLAYS}
    every = {key: value for one in installed.values() for key, value in one.items()}
    return {
        overlay: [
            value
            for key, value in every.items()
            if key not in own and not value["apiVersion"].startswith("cert-manager.io/")
        ]
        for overlay, own in installed.items()
    }


def _objects(files: Mapping[str, str], folder: str) -> dict[tuple[str, str], Object]:
    """Return what identifies each object of a kustomization, by kind and name."""
    found: dict[tuple[str, str], Object] = {}
    (kustomization,) = parsed(files[f"{folder}/kustomization.yaml"])
    for resource in kustomization["resources"]:
        path = posixpath.normpath(f"{folder}/{resource}")
        if path not in files:
            found |= _objects(files, path)
            continue
        for value in parsed(files[path]):
            metadata = value["metadata"]
            identity = {key: metadata[key] for key in ("name", "namespace") if key in metadata}
            found[value["kind"], metadata["name"]] = {
                "apiVersion": value["apiVersion"], "kind": value["kind"], "metadata": identity
            }  # fmt: skip
    return found

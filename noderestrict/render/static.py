"""The files from which an API server loads our policies and our registration.

What is loaded so is in force before the first request, whatever etcd holds, and nobody changes it
through the API (KEP-5793).
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from noderestrict.agents.file import Agent
from noderestrict.policy.extra import Extra
from noderestrict.render.admission_configuration import PLUGINS, admission_configuration
from noderestrict.render.client_verification import FOLDER
from noderestrict.render.kubeadm import Kubeadm
from noderestrict.render.load import Object
from noderestrict.render.protection import Accounts, protection
from noderestrict.render.registration import Registration
from noderestrict.render.written import labelled, yaml_text

#: Ends every name, and no name in the API.
SUFFIX = ".static.k8s.io"
GATE = "ManifestBasedAdmissionControlConfig"
#: The first minor version that has the gate, and the first that has it on.
SINCE, _ON_SINCE = 36, 37
_CONFIGURATION = f"{FOLDER}/admission.yaml"
_POLICIES, _WEBHOOKS = f"{FOLDER}/policies", f"{FOLDER}/webhooks"
_FLAG, _GATES = "admission-control-config-file", "feature-gates"


@dataclass(frozen=True, slots=True)
class Options:
    """What the files depend on.

    Attributes:
        kubeadm: the cluster's configuration.
        minor: Kubernetes version of the API server, 1.``minor``.
        policies: those of the API and their bindings.
        accounts: who may change what is ours in the API.
        registration: by URL; None for none.
        ca_bundle: PEM, of the registration.
        extra: policy beyond the in-tree plugin, for the registration.
        admission: the AdmissionConfiguration to add to; None for none.
        agents: that are held to their node, for the registration.
    """

    kubeadm: Kubeadm
    minor: int
    policies: Sequence[Object]
    accounts: Accounts = field(default_factory=Accounts)
    registration: Registration | None = None
    ca_bundle: bytes = b""
    extra: Extra = field(default_factory=Extra)
    admission: Mapping[str, Any] | None = None
    agents: Sequence[Agent] = ()


def files(options: Options) -> dict[str, str]:
    """Return the content of every file; those in ``files`` belong into FOLDER.

    All policies are one file, so that an API server never sees those of two versions.

    Raises:
        ValueError: the API server cannot load them; the message says why.
    """
    _check(options)
    arguments = options.kubeadm.arguments()
    flags = {_FLAG: _CONFIGURATION, **_gates(options.minor, arguments.get(_GATES, ()))}
    configuration = admission_configuration(
        policies=_POLICIES,
        webhooks=None if options.registration is None else _WEBHOOKS,
        given=options.admission,
    )
    rendered: dict[str, Sequence[Object]] = {
        "files/admission.yaml": [configuration],
        "files/policies/noderestrict.yaml": as_static(options.policies),
        "files/policies/protection.yaml": as_static(protection(options.accounts)),
        "kubeadm.yaml": [
            *options.kubeadm.init(),
            options.kubeadm.with_arguments(flags, (), FOLDER),
        ],
    }
    if options.registration is not None:
        rendered["files/webhooks/noderestrict.yaml"] = as_static(
            [_registration(options.registration, options)]
        )
    return {path: yaml_text(map(labelled, objects)) for path, objects in rendered.items()}


def as_static(objects: Iterable[Object]) -> list[Object]:
    """Return policies, bindings and registrations with the names that files must give them."""
    named = []
    for one in objects:
        value = {**one, "metadata": {**one["metadata"], "name": one["metadata"]["name"] + SUFFIX}}
        if one["kind"] == "ValidatingAdmissionPolicyBinding":
            value["spec"] = {**one["spec"], "policyName": one["spec"]["policyName"] + SUFFIX}
        named.append(value)
    return named


def _registration(registration: Registration, options: Options) -> Object:
    bundle = base64.b64encode(options.ca_bundle).decode()
    asked = replace(registration, client_config={**registration.client_config, "caBundle": bundle})
    return asked.value(options.extra, agents=options.agents)


def _check(options: Options) -> None:
    if options.minor < SINCE:
        raise ValueError(
            f"Kubernetes 1.{options.minor}: API servers load policies from files since 1.{SINCE}"
        )
    arguments = options.kubeadm.arguments()
    for other in arguments.get(_FLAG, ()):
        if other != _CONFIGURATION and options.admission is None:
            raise ValueError(f"the API server has {_FLAG} {other}, to which these must be added")
    for text in arguments.get("disable-admission-plugins", ()):
        if off := PLUGINS.intersection(text.split(",")):
            raise ValueError(
                f"the API server has disable-admission-plugins {text}: {min(off)} loads the files"
            )


def _gates(minor: int, given: Sequence[str]) -> dict[str, str]:
    """Return the API server's feature gates; nothing if those that it has are enough."""
    entries = [entry.strip() for text in given for entry in text.split(",") if entry.strip()]
    on = minor >= _ON_SINCE and "AllBeta=false" not in entries
    others = []
    for entry in entries:
        name, _, value = entry.partition("=")
        if name == GATE:
            on = value.lower() == "true"
        else:
            others.append(entry)
    return {} if on else {_GATES: ",".join([*others, f"{GATE}=true"])}

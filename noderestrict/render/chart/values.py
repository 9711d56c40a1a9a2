"""The values of the chart: values.yaml, its JSON Schema and the table of the README follow."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from noderestrict.policy.table import RULE_IDS
from noderestrict.render.load import Object
from noderestrict.render.policy_modes import ACTIONS

_ENFORCED = ("audit", "warn", "enforce")
_MODES = (*_ENFORCED, "off")
_TEXT: Object = {"type": "string"}
_SWITCH: Object = {"type": "boolean"}
#: What a text in CEL cannot hold.
_AUDIENCE: Object = {"type": "string", "pattern": r"^[^'\\\s]+$"}
_ACCOUNT: Object = {
    "type": "string",
    "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
}
_ADDRESS: Object = {"type": "string", "pattern": r"^(\[[^\]]+\]|[^:\[\]]+):[0-9]+$"}
_LABELS: Object = {"type": "object", "additionalProperties": {"type": "string"}}


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the chart.

    Attributes:
        path: its keys, with dots.
        default: in effect where nothing else is given.
        schema: JSON Schema.
        help: what it does, as a sentence.
    """

    path: str
    default: Any
    schema: Object
    help: str


def _switch(path: str, *, on: bool, text: str) -> Value:
    return Value(path, on, _SWITCH, text)


def _list(items: Object) -> Object:
    return {"type": "array", "items": items}


def _one_of(choices: Sequence[str]) -> Object:
    return {"type": "string", "enum": list(choices)}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a chart is rendered with.

    Attributes:
        repository: of the image.
        tag: of the image, "" for the version of the chart.
        digest: of the image, "" for none.
        replicas: of the Deployment.
        port: at which servers listen.
        labels: of every object, besides ours.
        api_servers: HOST:PORT.
        api_audiences: of API servers.
        infrastructure: accounts whose token requests are left out.
        policy: flags, agents and webhooks.
        resources: of the server.
    """

    repository: str
    tag: str
    digest: str
    replicas: int
    port: int
    labels: Mapping[str, str]
    api_servers: Sequence[str]
    api_audiences: Sequence[str]
    infrastructure: Sequence[str]
    policy: Mapping[str, Any]
    resources: Mapping[str, Any]


def values(defaults: Defaults) -> list[Value]:
    """Return all values."""
    rule_names = {"anyOf": [{"enum": sorted(RULE_IDS)}, {"pattern": "^agents/[a-z0-9/-]+$"}]}
    return [
        Value(
            "mode",
            "audit",
            _one_of(_ENFORCED),
            (
                "audit denies nothing, whatever happens to the webhook; warn warns clients; "
                "enforce denies, and fails closed. Only an upgrade can enforce: install in mode "
                "audit first."
            ),
        ),
        Value(
            "ruleModes",
            {},
            {
                "type": "object",
                "propertyNames": rule_names,
                "additionalProperties": _one_of(_MODES),
            },
            "Modes of single rules, such as nodes/labels: enforce.",
        ),
        Value(
            "placement",
            "service",
            _one_of(("service", "control-plane")),
            (
                "service runs replicas behind a Service; control-plane runs a server beside each "
                "API server, on the host network, and needs a namespace whose pod security level "
                "is privileged. To change it, first upgrade with mode audit."
            ),
        ),
        Value(
            "replicas",
            defaults.replicas,
            {"type": "integer", "minimum": 1},
            "Number of servers behind the Service.",
        ),
        Value(
            "image.repository",
            defaults.repository,
            {"type": "string", "minLength": 1},
            ("Image of the server. The default is what make image builds, and no registry has it."),
        ),
        Value("image.tag", defaults.tag, _TEXT, "Its tag; the version of the chart by default."),
        Value(
            "image.digest",
            defaults.digest,
            {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
            "Its digest, which prevails over the tag.",
        ),
        Value(
            "image.pullPolicy",
            "",
            _one_of(("", "Always", "IfNotPresent", "Never")),
            "When it is pulled; Kubernetes' default if empty.",
        ),
        Value(
            "imagePullSecrets",
            [],
            _list(
                {
                    "type": "object",
                    "properties": {"name": _TEXT},
                    "required": ["name"],
                    "additionalProperties": False,
                }
            ),
            "Secrets with which it is pulled.",
        ),
        Value(
            "certificates",
            "job",
            _one_of(("job", "cert-manager")),
            (
                "Who renews the certificate in mode enforce: our CronJob, or cert-manager, which "
                "must be installed. Both sign with the CA that a Job of Helm's hooks creates."
            ),
        ),
        _switch(
            "hooks",
            on=True,
            text=(
                "Run Jobs before and after each install, upgrade and rollback. They create what "
                "is missing of CA and certificate, put the CA into the registration, and stop "
                "what would deny nodes. Their account exists only meanwhile. If off, run "
                "noderestrict certs bootstrap yourself."
            ),
        ),
        Value(
            "port",
            defaults.port,
            {"type": "integer", "minimum": 1, "maximum": 65535},
            "Port at which servers listen.",
        ),
        Value(
            "apiServers",
            list(defaults.api_servers),
            _list(_ADDRESS),
            (
                "HOST:PORT, how pods reach API servers. By default, pods on the host network use "
                "port 6443 of 127.0.0.1 and of their node, and others the Service of the cluster."
            ),
        ),
        Value(
            "apiAudiences",
            list(defaults.api_audiences),
            _list(_AUDIENCE),
            ("The API server's --api-audiences, if the server cannot learn them from its token."),
        ),
        Value(
            "infrastructureAccounts",
            list(defaults.infrastructure),
            _list(_ACCOUNT),
            (
                "Service accounts, NAMESPACE/NAME, of the pods that API servers need to reach the"
                " Service. In mode enforce, token requests for these pods are left out."
            ),
        ),
        Value(
            "policy.flags",
            list(defaults.policy["flags"]),
            _list(
                {
                    "type": "string",
                    "pattern": (
                        "^--(strict-rules|allow-node-labels|forbid-node-labels|allow-node-annotations)="
                    ),
                }
            ),
            (
                "Flags of the server for policy beyond the in-tree plugin. This value and the two"
                " below belong together: noderestrict render values writes them."
            ),
        ),
        Value(
            "policy.agents",
            dict(defaults.policy["agents"]),
            {
                "type": "object",
                "propertyNames": {"pattern": r"^[-._a-zA-Z0-9]+$"},
                "additionalProperties": _TEXT,
            },
            "Policy files of agents: names and texts.",
        ),
        Value(
            "policy.webhooks",
            list(defaults.policy["webhooks"]),
            _list({"type": "object", "required": ["name", "rules", "matchConditions"]}),
            (
                "Webhooks of the registration, without clientConfig; those of this version's "
                "rules if empty."
            ),
        ),
        Value(
            "policies",
            "none",
            _one_of(("none", *ACTIONS)),
            (
                "Also let API servers apply the rules that need no look-up, as "
                "ValidatingAdmissionPolicies, which deny, warn or only audit."
            ),
        ),
        _switch(
            "mirrorPods",
            on=False,
            text=("Deny nodes mirror pods in our namespace, by a ValidatingAdmissionPolicy."),
        ),
        _switch(
            "networkPolicies",
            on=True,
            text=("Let nobody connect to pods of our namespace, except to ports of the server."),
        ),
        _switch(
            "clientVerification",
            on=False,
            text=(
                "Answer only API servers: those with a certificate of the CA in ConfigMap "
                "noderestrict-client-ca."
            ),
        ),
        _switch(
            "dedicatedNodes",
            on=False,
            text=("Run pods on nodes set apart for them, in clusters without control-plane nodes."),
        ),
        _switch(
            "events",
            on=False,
            text="Write Events about nodes that are refused something.",
        ),
        _switch(
            "monitoring",
            on=False,
            text=(
                "A ServiceMonitor or PodMonitor, alerts and a dashboard. With placement "
                "control-plane it opens port 9090 of the nodes."
            ),
        ),
        Value(
            "resources", dict(defaults.resources), {"type": "object"}, "Resources of the server."
        ),
        Value(
            "extraArgs",
            [],
            _list({"type": "string", "pattern": "^--"}),
            "More flags of noderestrict serve.",
        ),
        Value("labels", dict(defaults.labels), _LABELS, "Labels of every object, besides ours."),
        Value("global", {}, {"type": "object"}, "Not used; Helm passes it to subcharts."),
    ]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def values_file(all_values: Sequence[Value], header: str) -> str:
    """Return values.yaml.

    Args:
        all_values: of the chart.
        header: comment at the top.
    """
    lines = [header.rstrip()]
    opened = ""
    for value in all_values:
        if value.path == "global":
            continue
        parent, _, name = value.path.rpartition(".")
        if parent != opened and parent:
            lines.append(f"{parent}:")
        opened = parent
        indent = "  " if parent else ""
        lines += [f"{indent}# {line}" for line in _wrapped(value.help, 95 - len(indent))]
        text = yaml.safe_dump({name: value.default}, sort_keys=False, width=1000).rstrip()
        lines += [f"{indent}{line}" for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def schema(all_values: Sequence[Value]) -> str:
    """Return the JSON Schema of the values."""
    root: Object = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": {},
    }
    for value in all_values:
        at = root
        *parents, name = value.path.split(".")
        for parent in parents:
            empty: Object = {"type": "object", "additionalProperties": False, "properties": {}}
            at = at["properties"].setdefault(parent, empty)
        at["properties"][name] = {
            **value.schema, "description": value.help, "default": value.default
        }  # fmt: skip
    return json.dumps(root, indent=2) + "\n"


def table(all_values: Sequence[Value]) -> Iterator[str]:
    """Yield the lines of a Markdown table of all values."""
    yield "| Value | Default | What it does |"
    yield "|---|---|---|"
    for value in all_values:
        if value.path != "global":
            default = json.dumps(value.default)
            allowed = value.schema.get("enum")
            choices = f" ({', '.join(one or 'empty' for one in allowed)})" if allowed else ""
            yield f"| `{value.path}` | `{default}` | {value.help}{choices} |"

"""All files of the chart."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from noderestrict import __version__
from noderestrict.agents.file import Agent
from noderestrict.policy.extra import Extra
from noderestrict.render.chart import values
from noderestrict.render.chart.markers import substituted
from noderestrict.render.chart.objects import HEADER as TEMPLATE_HEADER
from noderestrict.render.chart.objects import Templates
from noderestrict.render.infrastructure import AUDIENCES, Infrastructure
from noderestrict.render.load import Object, chart_files, text
from noderestrict.render.names import IMAGE_REPOSITORY, Installation
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.registration import OPTIONAL_FIELDS_SINCE, Registration
from noderestrict.render.workload import DEDICATED_NODES, deployment
from noderestrict.render.written import HEADER, yaml_text

_AUDIENCE = "AUDIENCE"
_DESCRIPTION = "Kubernetes node isolation outside the API server."


def policy_values(
    extra: Extra, agents: Sequence[Agent], agent_files: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of the chart that depend on a policy.

    Args:
        extra: policy beyond the in-tree plugin.
        agents: that are held to their node.
        agent_files: the policy files that say so: names and texts.
    """
    changed = agents or extra != Extra()
    return {
        "flags": policy_flags(extra),
        "agents": dict(agent_files),
        "webhooks": _webhooks(extra, agents) if changed else [],
    }


def _webhooks(extra: Extra, agents: Sequence[Agent]) -> list[Object]:
    """Return the webhooks of the registration without what depends on other values."""
    found = Registration({"url": ""}).value(extra, agents=agents)["webhooks"]
    left_out = ("clientConfig", "failurePolicy")
    return [{key: value for key, value in one.items() if key not in left_out} for one in found]


def files(
    installation: Installation,
    extra: Extra,
    agents: Sequence[Agent],
    agent_files: Mapping[str, str],
    dashboard: str,
    *,
    api_servers: Sequence[str],
    api_audiences: Sequence[str],
    infrastructure: Sequence[str],
) -> dict[str, str]:
    """Return the content of every file, by its path in the chart.

    Args:
        installation: what it has of its own, for the defaults of values.
        extra: policy beyond the in-tree plugin.
        agents: that are held to their node.
        agent_files: the policy files that say so: names and texts.
        dashboard: JSON.
        api_servers: HOST:PORT, how our pods reach API servers.
        api_audiences: of the API server.
        infrastructure: accounts whose token requests are left out.
    """
    repository, tag, digest = _image(installation.image)
    known = values.values(
        values.Defaults(
            repository, tag, digest, installation.replicas, installation.port, installation.labels,
            api_servers, api_audiences, infrastructure, policy_values(extra, agents, agent_files),
            deployment()["spec"]["template"]["spec"]["containers"][0]["resources"],
        )
    )  # fmt: skip
    audiences = {"AUDIENCES": " ".join(f'"{one}"' for one in AUDIENCES)}
    words = {
        "DEDICATED": DEDICATED_NODES,
        **audiences,
        "NOT_INFRASTRUCTURE": substituted(_not_infrastructure(), audiences),
        "VALUES": "\n".join(values.table(known)),
    }
    found = {
        path: substituted(text(f"chart/{path}", installation), words) for path in chart_files()
    }
    templates = {
        path: TEMPLATE_HEADER + content if path.startswith("templates/") else content
        for path, content in found.items()
    }
    return {
        **templates,
        **{
            f"templates/{name}": one
            for name, one in Templates(installation.registration, installation.documentation)
            .files()
            .items()
        },
        "Chart.yaml": yaml_text([_metadata()]),
        "values.yaml": values.values_file(known, HEADER),
        "values.schema.json": values.schema(known),
        "files/webhooks.yaml": yaml_text(_lists(_webhooks(extra, agents))),
        "files/dashboard.json": dashboard,
    }


def _lists(value: list[Object]) -> list[Any]:
    """Return one document that is a list."""
    return [value]


def _metadata() -> Object:
    return {
        "apiVersion": "v2",
        "name": "noderestrict",
        "description": _DESCRIPTION,
        "type": "application",
        "version": _semantic(__version__),
        "appVersion": __version__,
        "kubeVersion": f">=1.{OPTIONAL_FIELDS_SINCE}.0-0",
        "keywords": ["security", "admission", "node-isolation"],
    }


def _semantic(version: str) -> str:
    """Return a version of Python's as Helm wants it: 1.0.0rc1 is 1.0.0-rc.1."""
    return re.sub(r"[.]?(a|b|rc|dev|post)([0-9]+)$", r"-\1.\2", version)


def _image(image: str) -> tuple[str, str, str]:
    """Return repository, tag and digest; no tag if it is this version's."""
    name, _, digest = image.partition("@")
    repository, tag = name, ""
    if ":" in name.rpartition("/")[2]:
        repository, _, tag = name.rpartition(":")
    return repository or IMAGE_REPOSITORY, "" if tag == __version__ else tag, digest


def _not_infrastructure() -> str:
    """Return the condition for token requests, as a template."""
    expression = Infrastructure(("place/place",), (_AUDIENCE,)).condition()["expression"]
    accounts = '{{ include "noderestrict.celList" .Values.infrastructureAccounts }}'
    audiences = (
        '{{ include "noderestrict.celList" (.Values.apiAudiences | default (list @AUDIENCES@)) }}'
    )
    return expression.replace("['place/place']", accounts).replace(f"['{_AUDIENCE}']", audiences)

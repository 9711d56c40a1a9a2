"""Does the authorization webhook answer, after RBAC and with short caches?

And is a permission that keeps nodes Ready without it harmless? RBAC cannot say that a Lease is the
node's own: only admission does.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from noderestrict.doctor import exposition
from noderestrict.doctor.authorization_config import ConfigurationError, read_authorizers
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.permissions import Permission, granted, review
from noderestrict.doctor.probe import probe
from noderestrict.doctor.restore import EDIT_API_SERVER
from noderestrict.doctor.trust import some
from noderestrict.doctor.workloads import AUTHORIZER, api_servers, authorizers, elements, values
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP
from noderestrict.render.authorizer import (
    ALLOWED_SECONDS,
    NOT_ALLOWED_SECONDS,
    answers_by_request,
)
from noderestrict.serving.limits import parse_timeout

_LONGEST_TTL = 5.0
_NODE = "noderestrict-doctor"
_LEASES = tuple(
    Permission(verb, "coordination.k8s.io", "leases", namespace="kube-node-lease")
    for verb in ("create", "update", "patch", "delete")
)
_NAMESPACE, _API_SERVER = "kube-system", "kube-apiserver-"
_FLAGS = ("--authorization-config", "--authorization-webhook-config-file")
_LOGS = f"kubectl -n {_NAMESPACE} logs"
_REVOKE = "kubectl -n kube-node-lease delete role,rolebinding noderestrict-node-leases"
_START = "cp authorizer/static-pod.yaml /etc/kubernetes/manifests/noderestrict-authorizer.yaml"
_DECISIONS = "apiserver_authorization_decisions_total"
_WITHOUT_ANSWER = "apiserver_authorization_webhook_evaluations_fail_open_total"
_RELOADS = "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds"
_RENDER = "noderestrict render authorizer"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield findings on the API servers' flags, and on the file that was given."""
    servers = await api_servers(cluster)
    for name, command in servers.items():
        modes = elements(values(command, "--authorization-mode"))
        if "Webhook" in modes and "RBAC" in modes and modes.index("Webhook") < modes.index("RBAC"):
            yield warned(
                f"{name}: Webhook precedes RBAC in --authorization-mode",
                "put RBAC first: fewer requests then reach the webhook",
                EDIT_API_SERVER,
            )
    for finding in await _leases(cluster):
        yield finding
    pods = await authorizers(cluster)
    if pods or any(_names_webhook(command) for command in servers.values()):
        for finding in [*_running(pods, servers), *await _answers(cluster)]:
            yield finding
    if cluster.options.authorization_config is not None:
        file = cluster.options.authorization_config
        for finding in await asyncio.to_thread(check_authorization_config, file):
            yield finding


def _names_webhook(command: Sequence[str]) -> bool:
    return any(values(command, flag) for flag in _FLAGS)


async def _leases(cluster: Cluster) -> list[Finding]:
    """Return whether RBAC lets any node write the Lease of another."""
    # Not named as a node: only RBAC and its like decide.
    if not await granted(cluster, _NODE, _LEASES, [NODES_GROUP]):
        return []
    refusal = await probe(cluster)
    if refusal is None:
        return [
            failed(
                f"RBAC lets {NODES_GROUP} write Leases, and admission lets a node write that of "
                "another: it can keep it Ready, or take its Lease over",
                "enforce the rules about Leases, or take the permission away",
                _REVOKE,
            )
        ]
    if refusal.code == HTTPStatus.FORBIDDEN and "impersonate" not in str(refusal):
        return [passed(f"RBAC lets {NODES_GROUP} write Leases, and admission only their own")]
    return [
        unknown(
            f"RBAC lets {NODES_GROUP} write Leases; whether admission keeps a node from writing "
            f"that of another could not be seen: {refusal}",
            "see the other findings, or take the permission away",
            _REVOKE,
        )
    ]


def _running(pods: Sequence[Any], servers: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield which servers are not ready, and which API servers have none beside them."""
    ready = set()
    for pod in pods:
        name, node = pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName") or ""
        conditions = (pod.get("status") or {}).get("conditions") or ()
        if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            ready.add(node)
        else:
            yield failed(f"{name} is not ready", "see its log", f"{_LOGS} {name}")
    nodes = {(pod.get("spec") or {}).get("nodeName") or "" for pod in pods}
    for name in servers:
        node = name.removeprefix(_API_SERVER)
        if pods and node not in (name, *nodes):
            yield failed(
                f"{name}: no authorizer runs on {node}",
                'install it there, see "Install it with kubeadm" in docs/authorizer.md',
                _START,
            )
    if ready:
        yield passed(f"ready on {some(sorted(ready))}")


async def _answers(cluster: Cluster) -> list[Finding]:
    """Return whether the API server gets answers about nodes, and what it counts."""
    own = Permission("get", "", "nodes", name=_NODE)
    groups = [NODES_GROUP, "system:authenticated"]
    status = await review(cluster, f"{NODE_USER_PREFIX}{_NODE}", own, groups)
    if error := status.get("evaluationError"):
        return [
            failed(
                f"the API server gets no answer: {error}", "see why", f"{_LOGS} {AUTHORIZER}-NODE"
            )
        ]
    if not status.get("allowed"):
        return [
            failed(
                f"a node may not read its own Node: {status.get('reason') or 'nobody allows it'}",
                "see what the API server asks, and its log",
                f"{_LOGS} kube-apiserver-NODE",
            )
        ]
    found = [passed("nodes are answered")]
    text = await exposition.of_api_server(cluster)
    for one in exposition.samples(text, (_DECISIONS, _WITHOUT_ANSWER, _RELOADS)):
        if one.name == _DECISIONS and one.labels.get("type") == "Node":
            found.append(
                warned(
                    "the Node authorizer answers as well, and the webhook adds nothing to it",
                    "remove Node from the API server's authorizers",
                    _RENDER,
                )
            )
        elif one.name == _WITHOUT_ANSWER and one.value:
            found.append(
                warned(
                    f"the API server got no answer to {one.value:.0f} questions since it started "
                    f"({one.labels.get('result')})",
                    "see whether that goes on",
                    f"kubectl get --raw /metrics | grep {_WITHOUT_ANSWER}",
                )
            )
    reloads = {one.labels.get("status"): one.value for one in exposition.samples(text, (_RELOADS,))}
    if reloads.get("failure", 0) > reloads.get("success", 0):
        found.append(
            failed(
                "the API server cannot use its changed AuthorizationConfiguration",
                "render it again",
                _RENDER,
            )
        )
    return list(dict.fromkeys(found))


def check_authorization_config(file: Path) -> list[Finding]:
    """Return what is wrong with an AuthorizationConfiguration."""
    try:
        authorizers = read_authorizers(file)
    except ConfigurationError as error:
        return [failed(str(error), "render it again", _RENDER)]
    # Another check judges those that ask about agents, which come before RBAC.
    of_nodes = [one.kind for one in authorizers if not one.is_for_agents]
    if "Webhook" not in of_nodes:
        return [failed(f"{file}: no authorizer is a Webhook", "render it again", _RENDER)]
    found = list(_order(file, of_nodes))
    for one in authorizers:
        if one.kind == "Webhook":
            found += _caches(file, one.webhook)
    return found or [passed(f"{file}: {', '.join(one.kind for one in authorizers)}")]


def _order(file: Path, types: Sequence[str]) -> Iterator[Finding]:
    if "RBAC" not in types or types.index("RBAC") > types.index("Webhook"):
        yield warned(f"{file}: RBAC does not precede the webhook", "put RBAC first", _RENDER)
    if "Node" in types:
        yield warned(
            f"{file}: the Node authorizer is enabled as well",
            "remove it, or remove the webhook",
            _RENDER,
        )
    if "AlwaysAllow" in types:
        yield failed(f"{file}: AlwaysAllow allows every request", "remove it", _RENDER)


def _caches(file: Path, webhook: Mapping[str, Any]) -> Iterator[Finding]:
    by_request = answers_by_request(webhook)
    for ttl, default in (
        ("authorizedTTL", ALLOWED_SECONDS),
        ("unauthorizedTTL", NOT_ALLOWED_SECONDS),
    ):
        longest, better = (default, default) if by_request else (_LONGEST_TTL, 1)
        given = webhook.get(ttl)
        seconds = parse_timeout(str(given)) if given else default
        if seconds is None or seconds > longest:
            yield warned(
                f"{file}: {ttl} is {given or 'unset'}: answers are cached for too long",
                f"set it to {better}s",
                _RENDER,
            )


CHECK = Check(
    "authorizer", "Does the authorization webhook answer, after RBAC and with short caches?", check
)

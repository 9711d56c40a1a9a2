"""The checks that ask the cluster."""

import asyncio
import base64
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import tree
from noderestrict.cluster.questions import is_open_to_cve_2021_25735, server_version
from noderestrict.doctor.access import Right, shown, those_that
from noderestrict.doctor.audiences import check_audiences
from noderestrict.doctor.client_verification import check_clients
from noderestrict.doctor.credentials import (
    check_credentials,
    check_endpoints,
    check_expected,
    check_old_manifests,
    check_trusted_nodes,
    rights_to_change,
)
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.registration import check_registration
from noderestrict.policy.extra import Extra
from noderestrict.policy.features import LATEST_MINOR, OLDEST_MINOR
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP
from noderestrict.render.registration import cluster_role
from noderestrict.replay.sources import YAML_VALUE_ERRORS

_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_SOON = dt.timedelta(days=30)
_PLUGIN = "NodeRestriction"
_PROBE = "noderestrict-doctor"
_FORBIDDEN, _NOT_FOUND = 403, 404
#: What a reader must not be able to do.
_TOO_MUCH = (
    Right("get", "", "secrets"),
    Right("create", "", "secrets"),
    Right("create", "", "pods"),
    Right("update", "", "nodes"),
    Right("impersonate", "", "users"),
)
_LONGEST_TTL = 5.0
_UNREADABLE_YAML = (OSError, yaml.YAMLError, *YAML_VALUE_ERRORS)


@dataclass(frozen=True, slots=True)
class Options:
    """What is examined.

    Attributes:
        configuration: name of the ValidatingWebhookConfiguration.
        connect: where the server can be reached from here, if not at the registered URL.
        server_user: whose rights are checked.
        node_kubeconfigs: of kubelets.
        authorization_config: a copy of the API server's file.
        extra: policy beyond the in-tree plugin, with which the manifests were rendered.
    """

    configuration: str = "noderestrict"
    connect: tuple[str, int] | None = None
    server_user: str = "system:serviceaccount:noderestrict:noderestrict"
    node_kubeconfigs: tuple[Path, ...] = ()
    authorization_config: Path | None = None
    extra: Extra = field(default_factory=Extra)


async def examine(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    """Yield what each check finds; one that cannot be made is a warning.

    Args:
        connection: with the rights of an administrator, best.
        options: see there.
    """
    checks: tuple[tuple[str, Callable[[Connection, Options], AsyncIterator[Finding]]], ...] = (
        ("server version", _version),
        ("registration", _registration),
        ("certificate", _certificate),
        ("endpoints", _endpoints),
        ("known-bad request", _known_bad),
        ("client verification", _clients),
        ("in-tree plugin", _api_server_flags),
        ("rights", _rights),
        ("api audiences", _audiences),
        ("trusted nodes", _trusted_nodes),
        ("credentials", _credentials),
        ("old manifests", _old_manifests),
        ("node credentials", _node_credentials),
        ("authorizer", _authorizer),
    )
    for name, check in checks:
        try:
            async for finding in check(connection, options):
                yield finding
        except ClusterError as error:
            yield warned(name, f"could not be checked: {error}", "see the message")
        except YAML_VALUE_ERRORS as error:
            what = f"an object is not of its type: {type(error).__name__}: {error}"
            yield warned(name, f"could not be checked: {what}", "see the message")


async def _read(connection: Connection, path: str, query: Mapping[str, str] | None = None) -> Any:
    try:
        return tree(await connection.get(path, query))
    except ScanError as error:
        raise ClusterError(f"GET {path}: {error}") from None


async def _version(connection: Connection, _options: Options) -> AsyncIterator[Finding]:
    minor, patch = await server_version(connection)
    check, version = "server version", f"1.{minor}.{patch}"
    if is_open_to_cve_2021_25735(minor, patch):
        yield failed(
            check,
            f"{version} is open to CVE-2021-25735: updates of Nodes can pass webhooks unseen",
            "upgrade the API server",
        )
    elif not OLDEST_MINOR <= minor <= LATEST_MINOR:
        yield warned(
            check,
            f"{version} is none of the versions whose gate defaults are known "
            f"(1.{OLDEST_MINOR} to 1.{LATEST_MINOR})",
            "set --feature-gates as the API server has them",
        )
    else:
        yield passed(check, version)


async def _configuration(connection: Connection, options: Options) -> Any:
    return await _read(connection, f"{_WEBHOOKS}/{options.configuration}")


async def _registration(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    try:
        configuration = await _configuration(connection, options)
    except ClusterError as error:
        if error.code != _NOT_FOUND:
            raise
        yield failed(
            "registration",
            f"there is no ValidatingWebhookConfiguration {options.configuration}",
            "apply an overlay of manifests/overlays",
        )
        return
    for finding in check_registration(configuration, options.extra):
        yield finding
    async for finding in check_expected(connection, configuration, options.extra):
        yield finding


async def _certificate(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    configuration = await _configuration(connection, options)
    for webhook in configuration.get("webhooks") or ():
        client = webhook["clientConfig"]
        name = webhook["name"]
        bundle = base64.b64decode(client.get("caBundle") or "")
        if not bundle:
            yield failed(
                "certificate", f"{name}: caBundle is empty: no server can be verified",
                "run noderestrict certs bootstrap, or let cert-manager inject the CA",
            )  # fmt: skip
            continue
        try:
            host, address = _where(client, options)
        except ValueError as error:
            yield failed(
                "certificate", f"{name}: {client['url'][:200]!r} cannot be called: {error}",
                "apply the rendered manifests again",
            )  # fmt: skip
            continue
        if address is None:
            yield warned(
                "certificate", f"{name}: its Service cannot be reached from here",
                "forward the port and give --connect HOST:PORT",
            )  # fmt: skip
            return
        yield await _served(name, bundle, host, address)


def _where(client: Mapping[str, Any], options: Options) -> tuple[str, tuple[str, int] | None]:
    """Return the name that the certificate must have, and where to connect.

    Raises:
        ValueError: the registered URL is none, or has no such port.
    """
    if client.get("service"):
        service = client["service"]
        return f"{service['name']}.{service['namespace']}.svc", options.connect
    url = urlsplit(client["url"])
    host, port = url.hostname or "", url.port
    return host, options.connect or (host, 443 if port is None else port)


async def _served(name: str, bundle: bytes, host: str, address: tuple[str, int]) -> Finding:
    check = "certificate"
    at = f"{name} at {address[0]}:{address[1]}"
    try:
        context = ssl.create_default_context(cadata=bundle.decode("ascii", "replace"))
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=host)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason
        return failed(
            check, f"{at}: the caBundle does not verify what is served for {host!r}: {reason}",
            "run noderestrict certs check",
        )  # fmt: skip
    except (OSError, TimeoutError) as error:
        return failed(
            check, f"{at}: no answer: {error or type(error).__name__}", "is the server running?"
        )
    peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    left = x509.load_der_x509_certificate(peer).not_valid_after_utc - dt.datetime.now(dt.UTC)
    if left < _SOON:
        return warned(
            check, f"{at}: the certificate expires in {left.days} days",
            "run noderestrict certs rotate, or look at cert-manager",
        )  # fmt: skip
    return passed(check, f"{at}: verified for {host!r}, valid for {left.days} days")


async def _endpoints(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    configuration = await _configuration(connection, options)
    services = {
        (service["namespace"], service["name"])
        for webhook in configuration.get("webhooks") or ()
        if (service := webhook["clientConfig"].get("service"))
    }
    for namespace, name in sorted(services):
        slices = await _read(
            connection,
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            {"labelSelector": f"kubernetes.io/service-name={name}"},
        )
        items = slices.get("items") or ()
        async for finding in check_endpoints(connection, f"{namespace}/{name}", items):
            yield finding
        ready = sum(
            (endpoint.get("conditions") or {}).get("ready") is not False
            for one in items
            for endpoint in one.get("endpoints") or ()
        )
        what = f"Service {namespace}/{name} has {ready} ready endpoints"
        if ready == 0:
            yield failed("endpoints", what, f"kubectl -n {namespace} get pods")
        elif ready == 1:
            yield warned("endpoints", what, "run two, on different nodes")
        else:
            yield passed("endpoints", what)


async def _probe(connection: Connection) -> None:
    """Ask for the lease of another node, as a node, without storing it.

    Raises:
        ClusterError: it was refused, as it should be, or could not be judged.
    """
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"{_PROBE}-other", "namespace": "kube-node-lease"},
    }
    headers = {
        "Impersonate-User": f"{NODE_USER_PREFIX}{_PROBE}",
        "Impersonate-Group": NODES_GROUP,
    }
    await connection.post(_LEASES, lease, query={"dryRun": "All"}, headers=headers)


async def _clients(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    configuration = await _configuration(connection, options)
    found = (
        _where(webhook["clientConfig"], options)[1]
        for webhook in configuration.get("webhooks") or ()
    )
    failure = ""
    try:
        await _probe(connection)
    except ClusterError as error:
        if error.code != _FORBIDDEN and ".noderestrict.io" in str(error):
            failure = str(error)
    for finding in await check_clients(sorted(filter(None, set(found))), failure):
        yield finding


async def _known_bad(connection: Connection, _options: Options) -> AsyncIterator[Finding]:
    check = "known-bad request"
    try:
        await _probe(connection)
    except ClusterError as error:
        text = str(error)
        if ".noderestrict.io" in text:
            if error.code == _FORBIDDEN:
                yield passed(check, "a node that writes the lease of another node is refused")
            else:
                yield failed(check, f"the webhook did not answer: {text}", "is it running?")
        elif error.code == _FORBIDDEN and "impersonate" in text:
            yield warned(
                check, "you may not impersonate a node", "allow it, or try with a node's kubeconfig"
            )
        elif error.code == _FORBIDDEN and "cannot create resource" in text:
            yield warned(check, f"an authorizer refused it first: {text}", "nothing is open here")
        elif error.code == _FORBIDDEN:
            yield warned(
                check, f"somebody else refused it first: {text}",
                f"the in-tree {_PLUGIN} plugin is on, too: turn it off, or leave both",
            )  # fmt: skip
        else:
            raise
    else:
        yield failed(
            check, "a node may write the lease of another node",
            "register the webhook, and enforce its rules: in mode audit it only reports",
        )  # fmt: skip


async def _api_server_flags(connection: Connection, _options: Options) -> AsyncIterator[Finding]:
    """Read the flags where API servers are static pods, as kubeadm runs them."""
    check = "in-tree plugin"
    pods = await _read(
        connection,
        "/api/v1/namespaces/kube-system/pods",
        {"labelSelector": "component=kube-apiserver"},
    )
    if not pods.get("items"):
        yield warned(
            check, "the API server's flags cannot be seen", f"look whether {_PLUGIN} is among them"
        )
    for pod in pods.get("items") or ():
        container = pod["spec"]["containers"][0]
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        flags = dict(word.removeprefix("--").partition("=")[::2] for word in words)
        name = pod["metadata"]["name"]
        on = _PLUGIN in flags.get("enable-admission-plugins", "").split(",")
        if on and _PLUGIN not in flags.get("disable-admission-plugins", "").split(","):
            yield warned(
                check, f"{name}: {_PLUGIN} is on, too: what either refuses is refused",
                "turn it off when the webhook enforces, or leave both",
            )  # fmt: skip
        else:
            yield passed(check, f"{name}: {_PLUGIN} is off")
        modes = flags.get("authorization-mode", "").split(",")
        if "Webhook" in modes and "RBAC" in modes and modes.index("Webhook") < modes.index("RBAC"):
            yield warned(
                "authorizer", f"{name}: Webhook stands before RBAC in --authorization-mode",
                "put RBAC first: the webhook is asked less",
            )  # fmt: skip


async def _rights(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    check = "rights"
    needed = [
        Right(verb, group, resource, name)
        for rule in cluster_role()["rules"]
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
        for name in rule.get("resourceNames") or ("",)
        for verb in rule["verbs"]
    ]
    user = options.server_user
    has = await those_that(connection, user, needed)
    missing = [right for right in needed if right not in has]
    extra = await those_that(
        connection, user, (*_TOO_MUCH, *rights_to_change(options.configuration))
    )
    if missing:
        yield failed(check, f"{user} may not {shown(missing)}", "apply manifests/base/rbac.yaml")
    if extra:
        yield failed(
            check, f"{user} may {shown(extra)}, which it never needs",
            "remove that binding: the server reads, and writes nothing",
        )  # fmt: skip
    if not missing and not extra:
        yield passed(check, f"{user} may do what it needs, and none of what it must not")


async def _trusted_nodes(connection: Connection, _options: Options) -> AsyncIterator[Finding]:
    async for finding in check_trusted_nodes(connection):
        yield finding


async def _audiences(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    async for finding in check_audiences(connection, options.server_user):
        yield finding


async def _credentials(connection: Connection, options: Options) -> AsyncIterator[Finding]:
    async for finding in check_credentials(connection, options.configuration):
        yield finding


async def _old_manifests(connection: Connection, _options: Options) -> AsyncIterator[Finding]:
    async for finding in check_old_manifests(connection):
        yield finding


async def _node_credentials(_connection: Connection, options: Options) -> AsyncIterator[Finding]:
    for file in options.node_kubeconfigs:
        yield await asyncio.to_thread(check_node_kubeconfig, file)


def check_node_kubeconfig(file: Path) -> Finding:
    """Return whether a kubelet's client certificate makes it a node to the rules."""
    check = "node credentials"
    try:
        user = _current_user(yaml.safe_load(file.read_text()))
        data = user.get("client-certificate-data")
        pem = (
            base64.b64decode(data)
            if data
            else (file.parent / user["client-certificate"]).read_bytes()
        )
        subject = x509.load_pem_x509_certificate(pem).subject
    except BaseException as error:
        if not is_failure(error):
            raise
        return failed(
            check, f"{file}: no client certificate can be read: {brief(error)}", "give a kubeconfig"
        )
    names = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    # As the API server reads a subject with several: the last wins.
    name = names[-1] if names else ""
    if NODES_GROUP in groups and name.removeprefix(NODE_USER_PREFIX) not in ("", name):
        return passed(check, f"{file}: {name} in {NODES_GROUP}")
    return failed(
        check,
        f"{file}: CN={name}, O={','.join(groups)} is no node: no rule holds it back",
        f"issue it with O={NODES_GROUP} and CN={NODE_USER_PREFIX}NAME",
    )


def _current_user(config: Any) -> Any:
    """Return the user of a kubeconfig's current context, or else the first."""
    current = next(
        (
            one["context"]["user"]
            for one in config.get("contexts") or ()
            if one["name"] == config.get("current-context")
        ),
        None,
    )
    users = config["users"]
    return next((one["user"] for one in users if one["name"] == current), users[0]["user"])


async def _authorizer(_connection: Connection, options: Options) -> AsyncIterator[Finding]:
    if options.authorization_config is not None:
        findings = await asyncio.to_thread(
            lambda file: list(check_authorization_config(file)), options.authorization_config
        )
        for finding in findings:
            yield finding


def check_authorization_config(file: Path) -> list[Finding]:
    """Return what is wrong with an AuthorizationConfiguration."""
    check = "authorizer"
    try:
        config = yaml.safe_load(file.read_text())
        authorizers = list(config["authorizers"])
        types = [str(one["type"]) for one in authorizers]
        webhooks = [
            dict(one.get("webhook") or {}) for one in authorizers if one["type"] == "Webhook"
        ]
    except _UNREADABLE_YAML as error:
        return [failed(check, f"{file}: no AuthorizationConfiguration: {error}", "check the file")]
    found = []
    if "Webhook" not in types:
        return [failed(check, f"{file}: no authorizer is a Webhook", "render it again")]
    if "RBAC" not in types or types.index("RBAC") > types.index("Webhook"):
        found.append(warned(check, f"{file}: RBAC is not before the webhook", "put it first"))
    if "Node" in types:
        found.append(warned(check, f"{file}: Node answers, too", "remove it, or the webhook"))
    if "AlwaysAllow" in types:
        found.append(failed(check, f"{file}: AlwaysAllow opens everything", "remove it"))
    found += [
        warned(
            check, f"{file}: {ttl} is {webhook.get(ttl)}: so late access follows", "set it to 1s"
        )
        for webhook in webhooks
        for ttl in ("authorizedTTL", "unauthorizedTTL")
        if _seconds(webhook.get(ttl)) > _LONGEST_TTL
    ]
    return found or [passed(check, f"{file}: {', '.join(types)}")]


def _seconds(duration: object) -> float:
    """Return a duration of the file; unset ones are minutes."""
    from noderestrict.serving.limits import parse_timeout

    seconds = parse_timeout(str(duration)) if duration else None
    return 300.0 if seconds is None else seconds


def as_json(findings: Sequence[Finding]) -> str:
    """Return findings as a JSON array."""
    return json.dumps(msgspec.to_builtins(list(findings)), indent=2) + "\n"

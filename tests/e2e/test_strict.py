"""Policy beyond the in-tree plugin on a real API server, registered as rendered with its flags."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import parse_allowed_labels, parse_node_keys
from noderestrict.policy.table import STRICT_RULE_IDS
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.registration import webhook_configuration
from tests.e2e.control_plane import APIError, Client
from tests.e2e.test_registration import (
    NODES,
    PODS,
    Registered,
    calls,
    configured,
    live,
    node_object,
    server,
    start,
    until_refused,
)
from tests.e2e.test_registration import registered as registered  # a fixture
from tests.serving.tls import Server

MERGE = "application/merge-patch+json"
EVENTS = "/api/v1/namespaces/default/events"
NEW_EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
EXTRA = Extra.of(
    parse_strict_rules("all"),
    allowed_labels=parse_allowed_labels("strict*=node-role.kubernetes.io/worker"),
    forbidden_labels=parse_node_keys("*=tier"),
    allowed_annotations=parse_node_keys("strict*=flannel.io/*"),
)


@pytest.fixture(scope="module")
def strict(registered: Registered) -> Iterator[Server]:
    with server(
        registered.control_plane, registered.folder, "strict", *policy_flags(EXTRA)
    ) as running:
        yield running


@pytest.fixture
def guarded(registered: Registered, strict: Server) -> Iterator[Registered]:
    with configured(
        registered, webhook_configuration(registered.client_config(strict), extra=EXTRA)
    ):
        until_refused(registered.control_plane.node("probe"))
        yield registered


def event(name: str, /, **about: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", **about},
        "reason": "Tested",
        "type": "Normal",
    }


def new_event(name: str, /, **about: str) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "regarding": {"apiVersion": "v1", **about},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "test",
        "reportingInstance": "test",
        "action": "Testing",
        "reason": "Tested",
        "type": "Normal",
    }


def serving_csr(node: str, dns: str) -> dict[str, Any]:
    subject = [
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, f"system:node:{node}"),
    ]
    names = x509.SubjectAlternativeName([x509.DNSName(dns)])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    csr = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "strict-"},
        "spec": {
            "signerName": "kubernetes.io/kubelet-serving",
            "request": base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode(),
            "usages": ["digital signature", "server auth"],
        },
    }


def addressed(registered: Registered, name: str) -> Client:
    node = start(registered, name)
    addresses = [{"type": "Hostname", "address": f"{name}.example.com"}]
    node.patch(f"{NODES}/{name}/status", {"status": {"addresses": addresses}})
    return node


def test_each_strict_rule_refuses_what_the_registration_sends(guarded: Registered) -> None:
    name = "strict1"
    node = addressed(guarded, name)
    own = f"{NODES}/{name}"
    attempts: list[tuple[str, tuple[Any, ...]]] = [
        ("nodes/unschedulable", ("PATCH", own, {"spec": {"unschedulable": True}}, MERGE)),
        ("nodes/pod-cidr", ("PATCH", own, {"spec": {"podCIDR": "10.9.0.0/24"}}, MERGE)),
        ("nodes/provider-id", ("PATCH", own, {"spec": {"providerID": "x://1"}}, MERGE)),
        ("nodes/annotations", ("PATCH", own, {"metadata": {"annotations": {"a": "b"}}}, MERGE)),
        ("nodes/annotations",
         ("PATCH", f"{own}/status", {"metadata": {"annotations": {"a": "b"}}}, MERGE)),
        ("nodes/finalizers", ("PATCH", own, {"metadata": {"finalizers": ["a/b"]}}, MERGE)),
        ("nodes/forbidden-labels", ("PATCH", own, {"metadata": {"labels": {"tier": "a"}}}, MERGE)),
        ("nodes/delete-self", ("DELETE", own)),
        ("certificatesigningrequests/addresses", ("POST", CSRS, serving_csr(name, "other.com"))),
        ("events/about-own", ("POST", EVENTS, event("e1", kind="Node", name="strict2"))),
        ("events/about-own", ("POST", NEW_EVENTS, new_event("e2", kind="Node", name="strict2"))),
        ("events/about-own",
         ("POST", EVENTS, event("e3", kind="ConfigMap", name="c", namespace="default"))),
    ]  # fmt: skip
    seen = set()
    for rule, attempt in attempts:
        with pytest.raises(APIError) as refused:
            node.request(*attempt)
        assert refused.value.code == 403, (rule, refused.value)
        assert "noderestrict.io" in str(refused.value), rule
        seen.add(rule)
    assert seen == set(STRICT_RULE_IDS)
    registering = guarded.control_plane.node("strict9")
    for labels, metadata, spec in (
        ({"tier": "a"}, {}, {}),
        ({}, {"annotations": {"a": "b"}}, {}),
        ({}, {"finalizers": ["a/b"]}, {}),
        ({}, {}, {"podCIDR": "10.9.9.0/24"}),
    ):
        new = node_object("strict9", **labels)
        new["metadata"].update(metadata)
        with pytest.raises(APIError) as refused:
            registering.create(NODES, {**new, "spec": spec})
        assert "nodes.noderestrict.io" in str(refused.value)


def test_a_kubelet_lives_with_every_strict_rule_and_is_not_asked_more(
    guarded: Registered, strict: Server
) -> None:
    name = "strict3"
    node = addressed(guarded, name)
    before = calls(strict)
    for number in range(5):
        live(node, name, number)
    node.create(EVENTS, event("own-node", kind="Node", name=name))
    assert calls(strict) == before
    node.create(EVENTS, event("own-pod", kind="Pod", namespace="default", name=f"on-{name}"))
    node.create(NEW_EVENTS, new_event("new-own-node", kind="Node", name=name))
    node.create(CSRS, serving_csr(name, f"{name}.example.com"))
    node.patch(f"{NODES}/{name}", {"metadata": {"annotations": {"flannel.io/ip": "1.2.3.4"}}})
    node.patch(f"{NODES}/{name}", {"metadata": {"labels": {"node-role.kubernetes.io/worker": ""}}})
    node.delete(f"{PODS}/on-{name}")

"""Probes of the rules about certificate signing requests and pod certificates."""

import base64
from typing import TYPE_CHECKING, Any

from noderestrict.graph.rules import Access
from noderestrict.policy.rule import CREATE, UPDATE
from noderestrict.policy.rules.podcertificaterequests import SIGNER_VERB
from noderestrict.probes.observed import (
    MADE_UP,
    InapplicableError,
    MissingError,
    Observed,
    account_of,
    named,
    projected,
    uid_of,
)
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Object, Request, user_of

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

_GROUP = "certificates.k8s.io"
_CSRS = API(
    _GROUP, "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
_SERVING_SIGNER = "kubernetes.io/kubelet-serving"
_PLURAL = "podcertificaterequests"


def _key() -> "ec.EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _signed(
    key: "ec.EllipticCurvePrivateKey", subject: dict[str, str], *names: str
) -> "x509.CertificateSigningRequest":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    attributes = [
        x509.NameAttribute(getattr(x509.NameOID, field), value) for field, value in subject.items()
    ]
    builder = x509.CertificateSigningRequestBuilder(x509.Name(attributes))
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, hashes.SHA256())


def _csr(seen: Observed, signer: str, node: str, usage: str, *names: str) -> Request:
    from cryptography.hazmat.primitives.serialization import Encoding

    subject = {"ORGANIZATION_NAME": "system:nodes", "COMMON_NAME": user_of(node)}
    pem = _signed(_key(), subject, *names).public_bytes(Encoding.PEM)
    body = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": MADE_UP},
        "spec": {
            "signerName": signer,
            "request": base64.b64encode(pem).decode(),
            "usages": ["digital signature", usage],
        },
    }
    return Request(user_of(seen.node), _CSRS, CREATE, "", MADE_UP, body)


@refused("certificatesigningrequests/common-name")
def certificate_of_another_node(seen: Observed) -> Request:
    """Request the client certificate of another node."""
    return _csr(seen, _CLIENT_SIGNER, f"{MADE_UP}-other", "client auth")


@passes("certificatesigningrequests/common-name", "certificatesigningrequests/addresses")
def own_certificate(seen: Observed) -> Request:
    """Request its own client certificate."""
    return _csr(seen, _CLIENT_SIGNER, seen.node, "client auth")


@refused("certificatesigningrequests/addresses")
def certificate_for_foreign_name(seen: Observed) -> Request:
    """Request a serving certificate for a name that is not its own."""
    name = f"{MADE_UP}.example.com"
    return _csr(seen, _SERVING_SIGNER, seen.node, "server auth", name)


def _api(seen: Observed, sub_resource: str = "") -> API:
    return API(_GROUP, seen.version_of(_PLURAL), _PLURAL, "PodCertificateRequest", sub_resource)


def _pod_certificate(seen: Observed, pod: Object, **changes: str) -> Request:
    api = _api(seen)
    namespace, name = named(pod)
    account = account_of(pod)
    uid = uid_of(pod)
    spec: dict[str, Any] = {
        "signerName": _signer(pod),
        "podName": name,
        "podUID": uid,
        "serviceAccountName": account,
        "serviceAccountUID": uid_of(seen.accounts[namespace, account])
        if (namespace, account) in seen.accounts
        else uid,
        "nodeName": seen.node,
        "nodeUID": uid_of(seen.existing_node()),
        "maxExpirationSeconds": 86400,
        **_proof(api.version, uid),
        **changes,
    }
    body = {
        "apiVersion": api.api_version,
        "kind": api.kind,
        "metadata": {"name": MADE_UP, "namespace": namespace},
        "spec": spec,
    }
    return Request(user_of(seen.node), api, CREATE, namespace, MADE_UP, body)


def _signer(pod: Object) -> str:
    for source in projected(pod, "podCertificate"):
        return str(source["signerName"])
    return f"{MADE_UP}.example.com/signer"


def _proof(version: str, pod_uid: str) -> dict[str, str]:
    """Return a public key with a proof that its private key is ours, as the version takes it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = _key()
    if version == "v1":
        stub = _signed(key, {}).public_bytes(Encoding.DER)
        return {"stubPKCS10Request": base64.b64encode(stub).decode()}
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    proof = key.sign(pod_uid.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        "pkixPublicKey": base64.b64encode(public).decode(),
        "proofOfPossession": base64.b64encode(proof).decode(),
    }


def _own_pod(seen: Observed, *, mounts: bool = False) -> Object:
    """Return a pod on the node, if wanted one that mounts a certificate."""
    seen.version_of(_PLURAL)
    for pod in seen.real_pods():
        namespace, _ = named(pod)
        fits = not mounts or any(projected(pod, "podCertificate"))
        if fits and (namespace, account_of(pod)) in seen.accounts:
            return pod
    what = "a projected certificate and " if mounts else ""
    raise MissingError(
        f"it takes a pod on node {seen.node} with {what}a service account that can be read"
    )


@refused("podcertificaterequests/gate")
def while_off(seen: Observed) -> Request:
    """Request a pod's certificate while the feature gate is off."""
    seen.version_of(_PLURAL)
    raise InapplicableError("the feature gate PodCertificateRequest is on")


@refused("podcertificaterequests/only-create")
def issue(seen: Observed) -> Request:
    """Issue a pod's certificate itself."""
    pod = _own_pod(seen)
    namespace, _ = named(pod)
    api = _api(seen, "status")
    patch = {"status": {"certificateChain": ""}}
    old = _pod_certificate(seen, pod).body
    return Request(user_of(seen.node), api, UPDATE, namespace, MADE_UP, patch, old)


@refused("podcertificaterequests/node")
def on_another_node(seen: Observed) -> Request:
    """Request a pod's certificate on another node."""
    return _pod_certificate(seen, _own_pod(seen), nodeName=seen.other_node)


@refused("podcertificaterequests/pod")
def for_foreign_pod(seen: Observed) -> Request:
    """Request the certificate of a pod on another node."""
    seen.version_of(_PLURAL)
    return _pod_certificate(seen, seen.foreign_pod())


@refused("podcertificaterequests/service-account")
def for_another_account(seen: Observed) -> Request:
    """Request a pod's certificate in the name of another service account."""
    return _pod_certificate(seen, _own_pod(seen), serviceAccountName=MADE_UP)


_SIGNER = f"{MADE_UP}.example.com/other"


def _grant(seen: Observed) -> Access:
    pod = _own_pod(seen)
    namespace, _ = named(pod)
    # Roles cannot name resources that contain slashes.
    resource = _SIGNER.replace("/", ":")
    return Access(
        seen.node, SIGNER_VERB, _GROUP, resource, namespace=namespace, name=account_of(pod)
    )


@refused("podcertificaterequests/signer", granted=_grant)
def of_any_signer(seen: Observed) -> Request:
    """Request a pod's certificate of a signer that the pod does not mount certificates of."""
    return _pod_certificate(seen, _own_pod(seen), signerName=_SIGNER)


@passes(
    "podcertificaterequests/gate",
    "podcertificaterequests/only-create",
    "podcertificaterequests/node",
    "podcertificaterequests/pod",
    "podcertificaterequests/service-account",
    "podcertificaterequests/signer",
)
def for_own_pod(seen: Observed) -> Request:
    """Request the certificate that a pod on the node mounts."""
    return _pod_certificate(seen, _own_pod(seen, mounts=True))

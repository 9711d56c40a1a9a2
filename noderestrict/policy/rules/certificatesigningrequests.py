"""CertificateSigningRequests: a node may ask for kubelet certificates in its own name only.

The source is admitCSR in plugin/pkg/admission/noderestriction of Kubernetes.
"""

import base64
import binascii
import re
from typing import TYPE_CHECKING

from noderestrict.api import certificatesv1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied, forbidden, retriable
from noderestrict.policy.identity import NODE_USER_PREFIX

if TYPE_CHECKING:
    from cryptography import x509

_SERVING_SIGNER = "kubernetes.io/kubelet-serving"
KUBELET_SIGNERS = frozenset({_SERVING_SIGNER, "kubernetes.io/kube-apiserver-client-kubelet"})
_UNREADABLE = "holds a CERTIFICATE REQUEST that cannot be read"
_BLOCK = re.compile(
    rb"-----BEGIN (?P<type>[^\r\n]*?)-----[ \t]*\r?\n(?P<body>.*?)-----END (?P=type)-----",
    re.DOTALL,
)
_HEADER = re.compile(rb"[^\r\n:]+:[^\r\n]*\r?\n")


def common_name(request: Attributes) -> Denied | None:
    """Refuse a kubelet certificate in another name: the node would become that node.

    Field: the subject's common name in spec.request. Since 1.31, unless the gate
    AllowInsecureKubeletCertificateSigningRequests is on.
    """
    if request.settings.features[features.ALLOW_INSECURE_CSR]:
        return None
    csr: certificatesv1.CertificateSigningRequest = request.new
    signer = (csr.spec.signerName if csr.spec else None) or ""
    if signer not in KUBELET_SIGNERS:
        return None
    rule = "certificatesigningrequests/common-name"
    wanted = NODE_USER_PREFIX + request.node
    try:
        name = csr_common_name((csr.spec.request if csr.spec else None) or b"")
    except ValueError as error:
        return forbidden(rule, f"{request.where}: spec.request {error}")
    if name == wanted:
        return None
    return forbidden(
        rule,
        f"{request.where}: the common name in spec.request is {name!r}; for signer {signer!r} "
        f"node {request.node!r} must ask for {wanted!r}",
    )


def addresses(request: Attributes) -> Denied | None:
    """Refuse a serving certificate for what is not the node's: it could pass for another host.

    Field: the subject alternative names in spec.request, against status.addresses of the Node.
    Beyond the in-tree plugin.
    """
    csr: certificatesv1.CertificateSigningRequest = request.new
    if (csr.spec.signerName if csr.spec else None) != _SERVING_SIGNER:
        return None
    rule = "certificatesigningrequests/addresses"
    try:
        names = csr_alternative_names((csr.spec.request if csr.spec else None) or b"")
    except ValueError as error:
        return forbidden(rule, f"{request.where}: spec.request {error}")
    if not names:
        return None
    node = request.listers.node(request.node)
    if node is None:
        return retriable(
            rule,
            f"{request.where}: Node {request.node!r} is not known, whose addresses a serving "
            f"certificate must name",
        )
    own = {address.lower() for address in node.addresses}
    foreign = [name for name in names if name.lower() not in own]
    if not foreign:
        return None
    return forbidden(
        rule,
        f"{request.where}: spec.request asks for {', '.join(map(repr, foreign))}, which "
        f"status.addresses of Node {request.node!r} does not have",
    )


def csr_alternative_names(pem: bytes) -> list[str]:
    """Return the subject alternative names of the first PEM block: DNS names, IP addresses.

    A name of another type is returned as its type and value, which no address equals.

    Raises:
        ValueError: there is no CERTIFICATE REQUEST that can be read; its content is not shown.
    """
    from cryptography import x509

    try:
        extensions = _first_csr(pem).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise ValueError(_UNREADABLE) from None
    return [
        str(name.value)
        if isinstance(name, x509.DNSName | x509.IPAddress)
        else f"{type(name).__name__} {name.value}"
        for name in names
    ]


def csr_common_name(pem: bytes) -> str:
    """Return the last common name of the first PEM block, "" for none.

    Raises:
        ValueError: there is no CERTIFICATE REQUEST that can be read; its content is not shown.
    """
    from cryptography import x509

    csr = _first_csr(pem)
    try:
        names = csr.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ValueError, TypeError):
        raise ValueError(_UNREADABLE) from None
    return str(names[-1].value) if names else ""


def _first_csr(pem: bytes) -> "x509.CertificateSigningRequest":
    """Return the first PEM block.

    As ParseCSR of k8s.io/kubernetes/pkg/apis/certificates: text before the block and headers in
    it are skipped.

    Raises:
        ValueError: there is no CERTIFICATE REQUEST that can be read; its content is not shown.
    """
    # Here, because it is half of the start-up time of commands that never see a CSR.
    from cryptography import x509

    block = _BLOCK.search(pem)
    if block is None or block["type"] != b"CERTIFICATE REQUEST":
        raise ValueError("holds no PEM block of type CERTIFICATE REQUEST")
    body = block["body"]
    while header := _HEADER.match(body):
        body = body[header.end() :]
    try:
        return x509.load_der_x509_csr(base64.b64decode(b"".join(body.split()), validate=True))
    except (ValueError, binascii.Error, TypeError):
        raise ValueError(_UNREADABLE) from None

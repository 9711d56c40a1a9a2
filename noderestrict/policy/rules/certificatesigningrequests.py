"""CertificateSigningRequests: a node may ask for kubelet certificates in its own name only.

The source is admitCSR in plugin/pkg/admission/noderestriction of Kubernetes.
"""

import base64
import binascii
import re

from noderestrict.api import certificatesv1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied, forbidden
from noderestrict.policy.identity import NODE_USER_PREFIX

KUBELET_SIGNERS = frozenset(
    {"kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"}
)
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


def csr_common_name(pem: bytes) -> str:
    """Return the last common name of the first PEM block, "" for none.

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
        csr = x509.load_der_x509_csr(base64.b64decode(b"".join(body.split()), validate=True))
        names = csr.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ValueError, binascii.Error, TypeError):
        raise ValueError("holds a CERTIFICATE REQUEST that cannot be read") from None
    return str(names[-1].value) if names else ""

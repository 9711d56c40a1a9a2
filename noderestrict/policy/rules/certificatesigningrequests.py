"""CertificateSigningRequests: a node may ask for kubelet certificates in its own name only.

The source is admitCSR in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import certificatesv1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Denied, forbidden, retriable
from noderestrict.policy.identity import NODE_USER_PREFIX
from noderestrict.policy.rule import ANY, CREATE, Target, rule
from noderestrict.policy.signing_request import csr_alternative_names, csr_common_name

CREATE_CSR = Target(
    "certificates.k8s.io",
    "certificatesigningrequests",
    ANY,
    CREATE,
    "CertificateSigningRequest",
    new=certificatesv1.CertificateSigningRequest,
)

_SERVING_SIGNER = "kubernetes.io/kubelet-serving"
KUBELET_SIGNERS = frozenset({_SERVING_SIGNER, "kubernetes.io/kube-apiserver-client-kubelet"})


@rule(
    "certificatesigningrequests/common-name",
    CREATE_CSR,
    demands="kubelet signers: the common name is the node user",
    since=31,
    gate=features.ALLOW_INSECURE_CSR,
)
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
    wanted = NODE_USER_PREFIX + request.node
    try:
        name = csr_common_name((csr.spec.request if csr.spec else None) or b"")
    except ValueError as error:
        return forbidden(f"{request.where}: spec.request {error}")
    if name == wanted:
        return None
    return forbidden(
        f"{request.where}: the common name in spec.request is {name!r}; for signer {signer!r} "
        f"node {request.node!r} must ask for {wanted!r}",
    )


@rule(
    "certificatesigningrequests/addresses",
    CREATE_CSR,
    demands="kubelet serving certificates: names and IP addresses are those of the Node",
    strict=True,
)
def addresses(request: Attributes) -> Denied | None:
    """Refuse a serving certificate for what is not the node's: it could pass for another host.

    Field: the subject alternative names in spec.request, against status.addresses of the Node.
    Beyond the in-tree plugin.
    """
    csr: certificatesv1.CertificateSigningRequest = request.new
    if (csr.spec.signerName if csr.spec else None) != _SERVING_SIGNER:
        return None
    try:
        names = csr_alternative_names((csr.spec.request if csr.spec else None) or b"")
    except ValueError as error:
        return forbidden(f"{request.where}: spec.request {error}")
    if not names:
        return None
    node = request.listers.node(request.node)
    if node is None:
        return retriable(
            f"{request.where}: Node {request.node!r} is not known, whose addresses a serving "
            f"certificate must name",
        )
    own = {address.lower() for address in node.addresses}
    foreign = listed(repr(name) for name in names if name.lower() not in own)
    if not foreign:
        return None
    return forbidden(
        f"{request.where}: spec.request asks for {foreign}, which "
        f"status.addresses of Node {request.node!r} does not have",
        f"it has {listed(map(repr, node.addresses)) or 'none'}",
    )

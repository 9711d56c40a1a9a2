"""CertificateSigningRequests: a node may request kubelet certificates only in its own name.

The source is admitCSR in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import certificatesv1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import Uncovered
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Denied, forbidden, retriable
from noderestrict.policy.identity import NODE_USER_PREFIX
from noderestrict.policy.releases import since
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
    since=since(31),
    gate=features.ALLOW_INSECURE_CSR,
    cel=Uncovered.PEM,
)
def common_name(request: Attributes) -> Denied | None:
    """Deny a kubelet certificate in another name, with which the node could act as another node.

    Field: the subject's common name in spec.request. Since 1.31, unless the feature gate
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
        f"node {request.node!r} must request {wanted!r}",
    )


@rule(
    "certificatesigningrequests/addresses",
    CREATE_CSR,
    demands="kubelet serving certificates: only names and IP addresses of the Node",
    strict=True,
    cel=Uncovered.PEM,
)
def addresses(request: Attributes) -> Denied | None:
    """Deny a serving certificate for foreign addresses, with which a node could impersonate a host.

    Fields: the subject alternative names in spec.request, which must be in the Node's
    status.addresses. Not in the in-tree plugin.
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
            f"{request.where}: Node {request.node!r} is not found, so the names in spec.request "
            f"cannot be checked; try again",
        )
    own = {address.lower() for address in node.addresses}
    foreign = listed(repr(name) for name in names if name.lower() not in own)
    if not foreign:
        return None
    return forbidden(
        f"{request.where}: spec.request names {foreign}; request only names and addresses in "
        f"status.addresses of Node {request.node!r}",
        f"the Node has {listed(map(repr, node.addresses)) or 'none'}",
    )

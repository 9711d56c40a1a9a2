"""PodCertificateRequests: a node may request certificates for its own pods.

A mismatch that may come from a stale store is answered 500, so that the kubelet retries.
The source is admitPodCertificateRequest in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import certificatesv1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import NEVER, Context, Form, Uncovered
from noderestrict.policy.compare import listed
from noderestrict.policy.decision import Decision, Denied, Question, forbidden, retriable
from noderestrict.policy.releases import since
from noderestrict.policy.rule import ANY, CREATE, Target, rule

_GROUP, _RESOURCE = "certificates.k8s.io", "podcertificaterequests"
CREATE_REQUEST = Target(
    _GROUP,
    _RESOURCE,
    "",
    CREATE,
    "PodCertificateRequest",
    new=certificatesv1.PodCertificateRequest,
)
SIGNER_VERB = "request-serviceaccounts-podcertificate-signer"
ANYTHING_ELSE = Target(_GROUP, _RESOURCE, ANY, ANY)


def _gate_allows(context: Context) -> tuple[str, ...]:
    return () if context.settings.features[features.POD_CERTIFICATE_REQUEST] else NEVER


@rule(
    "podcertificaterequests/gate",
    CREATE_REQUEST,
    ANYTHING_ELSE,
    demands="feature gate `PodCertificateRequest`",
    since=since(34),
    gate=features.POD_CERTIFICATE_REQUEST,
    by_name=True,
    cel=Form(
        _gate_allows,
        f"feature gate {features.POD_CERTIFICATE_REQUEST} is off; turn it on to allow them",
    ),
)
def gate(request: Attributes) -> Denied | None:
    """Deny everything while the feature gate PodCertificateRequest is off."""
    if request.settings.features[features.POD_CERTIFICATE_REQUEST]:
        return None
    return forbidden(
        f"{request.where}: feature gate PodCertificateRequest is off; turn it on to allow them",
    )


@rule(
    "podcertificaterequests/only-create",
    ANYTHING_ELSE,
    demands="only create",
    since=since(34),
    by_name=True,
    cel=Form(NEVER, "nodes may only create podcertificaterequests"),
)
def only_create(request: Attributes) -> Denied | None:
    """Deny everything but creating the request itself."""
    if request.operation == "CREATE" and not request.sub_resource:
        return None
    return forbidden(
        f"{request.where}: {request.operation} is not allowed for nodes, which may only create "
        f"podcertificaterequests",
    )


def _spec(request: Attributes) -> certificatesv1.PodCertificateRequestSpec:
    pcr: certificatesv1.PodCertificateRequest = request.new
    return pcr.spec or certificatesv1.PodCertificateRequestSpec()


@rule(
    "podcertificaterequests/node",
    CREATE_REQUEST,
    demands="its own Node, by its uid",
    since=since(34),
    cel=Uncovered.LOOKUP,
)
def own_node(request: Attributes) -> Denied | None:
    """Deny a request that names another node, or an earlier Node of the same name."""
    spec = _spec(request)
    if (spec.nodeName or "") != request.node:
        return forbidden(
            f"{request.where}: spec.nodeName is {spec.nodeName or ''!r}; "
            f"it must be {request.node!r}, the requesting node",
        )
    node = request.listers.node(request.node)
    if node is None:
        return retriable(f"{request.where}: node {request.node!r} is not found; try again")
    if (spec.nodeUID or "") != node.uid:
        return retriable(
            f"{request.where}: spec.nodeUID is {spec.nodeUID or ''!r}, which is not the uid of "
            f"node {request.node!r}; use that of the registered Node",
            f"the Node has uid {node.uid!r}",
        )
    return None


@rule(
    "podcertificaterequests/pod",
    CREATE_REQUEST,
    demands="a pod that runs on the node, by its uid, and not a mirror pod",
    since=since(34),
    cel=Uncovered.LOOKUP,
)
def own_pod(request: Attributes) -> Denied | None:
    """Deny a request for a pod on another node, a mirror pod, or a pod with another uid."""
    spec = _spec(request)
    name = f"{request.namespace}/{spec.podName or ''}"
    pod = request.listers.pod(request.namespace, spec.podName or "")
    if pod is None:
        return retriable(f"{request.where}: pods {name} of spec.podName is not found; try again")
    if (spec.podUID or "") != pod.uid:
        return retriable(
            f"{request.where}: spec.podUID is {spec.podUID or ''!r}, which is not the uid of pods "
            f"{name}",
            f"the pod has uid {pod.uid!r}",
        )
    if pod.node_name != request.node:
        return forbidden(
            f"{request.where}: pods {name} is not bound to node {request.node!r}, which may "
            f"request certificates only for its own pods",
            f"the pod has spec.nodeName {pod.node_name!r}",
        )
    if pod.mirror:
        return forbidden(f"{request.where}: pods {name} is a mirror pod, which has no identity")
    return None


@rule(
    "podcertificaterequests/service-account",
    CREATE_REQUEST,
    demands="the pod's service account, by its uid",
    since=since(34),
    cel=Uncovered.LOOKUP,
)
def own_service_account(request: Attributes) -> Denied | None:
    """Deny a request for a service account other than the pod's."""
    spec = _spec(request)
    pod = request.listers.pod(request.namespace, spec.podName or "")
    if pod is None:
        return retriable(f"{request.where}: the pod of spec.podName is not found; try again")
    wanted = spec.serviceAccountName or ""
    if wanted != pod.service_account_name:
        return forbidden(
            f"{request.where}: spec.serviceAccountName is {wanted!r}, which is not that of pods "
            f"{request.namespace}/{spec.podName or ''}",
            f"the pod runs as {pod.service_account_name!r}",
        )
    account = request.listers.service_account(request.namespace, wanted)
    name = f"{request.namespace}/{wanted}"
    if account is None:
        return retriable(f"{request.where}: serviceaccounts {name} is not found; try again")
    if (spec.serviceAccountUID or "") != account.uid:
        return retriable(
            f"{request.where}: spec.serviceAccountUID is {spec.serviceAccountUID or ''!r}, which "
            f"is not the uid of serviceaccounts {name}",
            f"the service account has uid {account.uid!r}",
        )
    return None


@rule(
    "podcertificaterequests/signer",
    CREATE_REQUEST,
    demands="a signer that the pod mounts certificates of, or that the authorizer allows",
    since=since(37),
    cel=Uncovered.LOOKUP,
)
def own_signer(request: Attributes) -> Decision | None:
    """Deny a signer that the pod does not ask for: a node could get certificates of any signer.

    Field: spec.signerName.
    """
    spec = _spec(request)
    signer = spec.signerName or ""
    name = f"{request.namespace}/{spec.podName or ''}"
    pod = request.listers.pod(request.namespace, spec.podName or "")
    if pod is None:
        return retriable(f"{request.where}: pods {name} of spec.podName is not found; try again")
    if signer in pod.signers:
        return None
    refused = forbidden(
        f"{request.where}: pods {name} has no projected podCertificate source with signer "
        f"{signer!r}; add one to the pod, or grant node {request.node!r} the verb {SIGNER_VERB} "
        f"on it",
        f"the pod itself asks for {listed(map(repr, pod.signers)) or 'none'}",
    )
    # Roles cannot name resources that contain slashes.
    resource = signer.replace("/", ":")
    account = spec.serviceAccountName or ""
    return Question(SIGNER_VERB, _GROUP, (resource,), account, request.namespace, refused)

"""PodCertificateRequests: a node may ask for certificates of its own pods.

What may be lag of our view is answered 500, so that the kubelet tries again.
The source is admitPodCertificateRequest in plugin/pkg/admission/noderestriction of Kubernetes.
"""

from noderestrict.api import certificatesv1
from noderestrict.policy import features
from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Denied, forbidden, retriable


def gate(request: Attributes) -> Denied | None:
    """Refuse everything while the gate PodCertificateRequest is off. Since 1.34."""
    if request.settings.features[features.POD_CERTIFICATE_REQUEST]:
        return None
    return forbidden(
        "podcertificaterequests/gate",
        f"{request.where}: the feature gate PodCertificateRequest is off",
    )


def only_create(request: Attributes) -> Denied | None:
    """Refuse all but the creation of the request itself. Since 1.34."""
    if request.operation == "CREATE" and not request.sub_resource:
        return None
    return forbidden(
        "podcertificaterequests/only-create",
        f"{request.where}: {request.operation} is not open to nodes; they may only create requests",
    )


def _spec(request: Attributes) -> certificatesv1.PodCertificateRequestSpec:
    pcr: certificatesv1.PodCertificateRequest = request.new
    return pcr.spec or certificatesv1.PodCertificateRequestSpec()


def own_node(request: Attributes) -> Denied | None:
    """Refuse a request that names another node, or another incarnation of it. Since 1.34."""
    rule = "podcertificaterequests/node"
    spec = _spec(request)
    if (spec.nodeName or "") != request.node:
        return forbidden(
            rule,
            f"{request.where}: spec.nodeName is {spec.nodeName or ''!r}; "
            f"it must be {request.node!r}, the requesting node",
        )
    node = request.listers.node(request.node)
    if node is None:
        return retriable(rule, f"{request.where}: node {request.node!r} is not found; try again")
    if (spec.nodeUID or "") != node.uid:
        return retriable(
            rule,
            f"{request.where}: spec.nodeUID is {spec.nodeUID or ''!r}, which is not the uid of "
            f"node {request.node!r}",
            f"the Node has uid {node.uid!r}",
        )
    return None


def own_pod(request: Attributes) -> Denied | None:
    """Refuse a request for a pod elsewhere, for a mirror pod, or in another name. Since 1.34."""
    rule = "podcertificaterequests/pod"
    spec = _spec(request)
    name = f"{request.namespace}/{spec.podName or ''}"
    pod = request.listers.pod(request.namespace, spec.podName or "")
    if pod is None:
        return retriable(
            rule, f"{request.where}: pods {name} of spec.podName is not found; try again"
        )
    if (spec.podUID or "") != pod.uid:
        return retriable(
            rule,
            f"{request.where}: spec.podUID is {spec.podUID or ''!r}, which is not the uid of pods "
            f"{name}",
            f"the pod has uid {pod.uid!r}",
        )
    if pod.node_name != request.node:
        return forbidden(
            rule,
            f"{request.where}: pods {name} is not bound to node {request.node!r}, which may ask "
            f"for certificates of its own pods only",
            f"the pod has spec.nodeName {pod.node_name!r}",
        )
    if pod.mirror:
        return forbidden(
            rule, f"{request.where}: pods {name} is a mirror pod, which has no identity"
        )
    return None


def own_service_account(request: Attributes) -> Denied | None:
    """Refuse a request in the name of another service account than the pod's. Since 1.34."""
    rule = "podcertificaterequests/service-account"
    spec = _spec(request)
    pod = request.listers.pod(request.namespace, spec.podName or "")
    if pod is None:
        return retriable(rule, f"{request.where}: the pod of spec.podName is not found; try again")
    wanted = spec.serviceAccountName or ""
    if wanted != pod.service_account_name:
        return forbidden(
            rule,
            f"{request.where}: spec.serviceAccountName is {wanted!r}, which is not that of pods "
            f"{request.namespace}/{spec.podName or ''}",
            f"the pod runs as {pod.service_account_name!r}",
        )
    account = request.listers.service_account(request.namespace, wanted)
    name = f"{request.namespace}/{wanted}"
    if account is None:
        return retriable(rule, f"{request.where}: serviceaccounts {name} is not found; try again")
    if (spec.serviceAccountUID or "") != account.uid:
        return retriable(
            rule,
            f"{request.where}: spec.serviceAccountUID is {spec.serviceAccountUID or ''!r}, which "
            f"is not the uid of serviceaccounts {name}",
            f"the service account has uid {account.uid!r}",
        )
    return None

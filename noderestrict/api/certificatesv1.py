"""certificates.k8s.io: what rules read of signing requests and pod certificate requests."""

import msgspec

from noderestrict.api.metav1 import ObjectMeta


class CertificateSigningRequestSpec(msgspec.Struct):
    """The signing request; ``request`` is PEM in base64."""

    signerName: str | None = None
    request: bytes | None = None


class CertificateSigningRequest(msgspec.Struct):
    """A CertificateSigningRequest."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: CertificateSigningRequestSpec | None = None


class PodCertificateRequestSpec(msgspec.Struct):
    """The pod, node and service account that a certificate is requested for."""

    nodeName: str | None = None
    nodeUID: str | None = None
    podName: str | None = None
    podUID: str | None = None
    signerName: str | None = None
    serviceAccountName: str | None = None
    serviceAccountUID: str | None = None


class PodCertificateRequest(msgspec.Struct):
    """A PodCertificateRequest."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: PodCertificateRequestSpec | None = None

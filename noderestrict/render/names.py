"""What an installation is called: its namespace, its registration, its image, its labels."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from noderestrict import __version__

NAMESPACE = "noderestrict"
#: The repository is one that nobody can pull from: whoever publishes the image names it.
IMAGE_REPOSITORY = "noderestrict"
IMAGE = f"{IMAGE_REPOSITORY}:{__version__}"
REPLICAS = 2
#: In the repository: whoever publishes the documents says where.
DOCUMENTATION = "docs"
#: Name of the ValidatingWebhookConfiguration.
REGISTRATION = "noderestrict"
LOOPBACK = "127.0.0.1"
#: That every object has.
OWN_LABELS: Mapping[str, str] = {
    "app.kubernetes.io/name": "noderestrict", "app.kubernetes.io/part-of": "noderestrict"
}  # fmt: skip
#: At which every server listens.
PORT = 8443

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
#: Repository, tag and digest.
_IMAGE = re.compile(
    r"[a-z0-9]([-a-z0-9._]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]([-a-z0-9._]*[a-z0-9])?)*"
    r"(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[0-9a-f]{64})?"
)


def dns_names(namespace: str = NAMESPACE) -> tuple[str, ...]:
    """Return the DNS names of the certificate, the same in every overlay.

    So another overlay can take the certificate over.
    """
    service = f"noderestrict.{namespace}.svc"
    return service, f"{service}.cluster.local", "localhost"


def certificate_names(namespace: str = NAMESPACE) -> tuple[str, ...]:
    """Return the DNS names and the IP address of the certificate."""
    return (*dns_names(namespace), LOOPBACK)


CERTIFICATE_NAMES = certificate_names()


def parse_namespace(text: str) -> str:
    """Return the name of a namespace; raises ValueError for what is none."""
    if not _DNS_LABEL.fullmatch(text):
        raise ValueError(
            f"{text!r} is not the name of a namespace: a-z, 0-9 and -, at most 63 of them"
        )
    return text


def parse_name(text: str) -> str:
    """Return the name of an object; raises ValueError for what is none."""
    if not _DNS_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of an object: a-z, 0-9, - and ., at most 253")
    return text


def parse_namespaced_name(text: str) -> tuple[str, str]:
    """Return the parts of NAMESPACE/NAME; raises ValueError for what is none."""
    namespace, _, name = text.partition("/")
    try:
        return parse_namespace(namespace), parse_name(name)
    except ValueError:
        raise ValueError(f"{text!r} is not NAMESPACE/NAME") from None


def parse_certificate_name(text: str) -> str:
    """Return a DNS name or an IP address of a certificate; raises ValueError for what is none."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # Go's TLS takes underscores and a dot at the end.
        plain = text.lower().replace("_", "x").removeprefix("*.").removesuffix(".")
        if not _DNS_NAME.fullmatch(plain):
            raise ValueError(f"{text!r} is neither a DNS name nor an IP address") from None
    return text


def parse_image(text: str) -> str:
    """Return the name of an image; raises ValueError for what is none."""
    if not _IMAGE.fullmatch(text):
        raise ValueError(f"{text!r} is no name of an image, such as registry.example.com/name:tag")
    return text


def parse_labels(text: str) -> dict[str, str]:
    """Return labels of the form ``A=B,C=D``.

    Raises:
        ValueError: one is no label, is given twice, or is one of ours.
    """
    found: dict[str, str] = {}
    for label in filter(None, text.split(",")):
        key, equals, value = label.partition("=")
        prefix, slash, name = key.rpartition("/")
        if (
            not equals
            or not name
            or not _LABEL_VALUE.fullmatch(name)
            or (slash and not _DNS_NAME.fullmatch(prefix))
            or not _LABEL_VALUE.fullmatch(value)
        ):
            raise ValueError(f"{label!r} is no label KEY=VALUE")
        if key in found:
            raise ValueError(f"label {key!r} is given twice")
        if key in OWN_LABELS:
            raise ValueError(f"label {key!r} is one of ours, by which its objects are found")
        found[key] = value
    return found


@dataclass(frozen=True, slots=True)
class Installation:
    """What one installation has of its own; data files write it in capitals.

    Attributes:
        namespace: of the pods.
        image: of the server.
        replicas: of the Deployment.
        registration: name of the ValidatingWebhookConfiguration.
        port: at which the server listens.
        labels: of every object, besides ours.
        documentation: where the documents are that alerts name.
    """

    namespace: str = NAMESPACE
    image: str = IMAGE
    replicas: int = REPLICAS
    registration: str = REGISTRATION
    port: int = PORT
    labels: Mapping[str, str] = field(default_factory=dict)
    documentation: str = DOCUMENTATION

    def words(self) -> dict[str, str]:
        """Return what stands for each word in capitals."""
        return {
            "NAMESPACE": self.namespace,
            "IMAGE": self.image,
            "REPLICAS": str(self.replicas),
            "REGISTRATION": self.registration,
            "PORT": str(self.port),
            "DOCUMENTATION": self.documentation,
        }

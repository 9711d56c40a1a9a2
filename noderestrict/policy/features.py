"""Feature gates with Kubernetes' names, and their defaults per Kubernetes minor version.

The source is pkg/features/kube_features.go of each release.
"""

from collections.abc import Mapping

from noderestrict.policy.releases import parse_release

#: Without an API server, and where a file of cases names no gate.
OFFLINE_MINOR = 36

ALLOW_INSECURE_CSR = "AllowInsecureKubeletCertificateSigningRequests"
AUDIENCE_RESTRICTION = "ServiceAccountNodeAudienceRestriction"
RECOVER_EXPANSION = "RecoverVolumeExpansionFailure"
POD_CERTIFICATE_REQUEST = "PodCertificateRequest"
DRA_EXTENDED_RESOURCE = "DRAExtendedResource"
AUTHORIZE_WITH_SELECTORS = "AuthorizeWithSelectors"
AUTHORIZE_NODE_WITH_SELECTORS = "AuthorizeNodeWithSelectors"
CREDENTIAL_PROVIDERS = "KubeletServiceAccountTokenForCredentialProviders"
CLUSTER_TRUST_BUNDLE = "ClusterTrustBundle"
CSI_VOLUME_HEALTH = "CSIVolumeHealth"

# The (first minor, default) pairs of each gate; before the first one the gate is off.
_HISTORY: Mapping[str, tuple[tuple[int, bool], ...]] = {
    ALLOW_INSECURE_CSR: ((0, True), (31, False)),
    AUDIENCE_RESTRICTION: ((32, False), (33, True)),
    RECOVER_EXPANSION: ((23, False), (32, True)),
    POD_CERTIFICATE_REQUEST: ((34, False), (37, True)),
    DRA_EXTENDED_RESOURCE: ((34, False), (36, True)),
    AUTHORIZE_WITH_SELECTORS: ((31, False), (32, True)),
    AUTHORIZE_NODE_WITH_SELECTORS: ((31, False), (32, True)),
    CREDENTIAL_PROVIDERS: ((33, False), (34, True)),
    CLUSTER_TRUST_BUNDLE: ((27, False), (37, True)),
    CSI_VOLUME_HEALTH: ((21, False),),
}

GATES = tuple(sorted(_HISTORY))


def defaults(minor: int) -> dict[str, bool]:
    """Return every gate with its default in Kubernetes 1.``minor``."""
    gates = {}
    for name, history in _HISTORY.items():
        gates[name] = False
        for since, value in history:
            if minor >= since:
                gates[name] = value
    return gates


def parse_version(text: str) -> int:
    """Return the minor version of ``1.NN``, ``v1.NN`` or ``v1.NN.P``.

    Raises:
        ValueError: the text is not a version of Kubernetes 1, or is older than 1.25.
    """
    return parse_release(text).minor


def parse_gates(text: str) -> dict[str, bool]:
    """Return the gates of ``A=true,B=false``, parsed like the flag of Kubernetes components.

    Raises:
        ValueError: an entry is not NAME=true or NAME=false, or the name is unknown.
    """
    gates = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = entry.partition("=")
        if not equals or value.strip().lower() not in ("true", "false"):
            raise ValueError(f"{entry!r} is not NAME=true or NAME=false")
        gates[name.strip()] = value.strip().lower() == "true"
    check_gates(gates)
    return gates


def resolve(minor: int, overrides: Mapping[str, bool]) -> dict[str, bool]:
    """Return the gates of Kubernetes 1.``minor``, with overrides applied.

    Raises:
        ValueError: an override names an unknown gate.
    """
    check_gates(overrides)
    return {**defaults(minor), **overrides}


def check_gates(gates: Mapping[str, bool]) -> None:
    """Check that every gate is known.

    Raises:
        ValueError: a gate is unknown; the message names it.
    """
    unknown = sorted(set(gates) - set(_HISTORY))
    if unknown:
        raise ValueError(
            f"unknown feature gate {', '.join(map(repr, unknown))}; known: {', '.join(GATES)}"
        )

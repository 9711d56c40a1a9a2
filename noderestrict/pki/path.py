"""Find what verifies a certificate, as Go's ``crypto/x509`` does.

Any certificate that is trusted may end a path, an intermediate as well as a root. Of the
certificates that a server sends, those that are not needed do not matter, nor does their order.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from noderestrict.pki.parsed import KeyPairError, Parsed

#: As in Go: a hostile server could otherwise make a client search for hours.
_MOST_SIGNATURES = 100

Path = tuple[Parsed, ...]


class _Search:
    """Looks for paths from a leaf to a trusted certificate.

    Attributes:
        problem: why the first candidate on the way was no use, "" if there was none.
    """

    def __init__(self, sent: Sequence[Parsed], trusted: Sequence[Parsed], now: dt.datetime) -> None:
        self._sent = sent
        self._trusted = trusted
        self._now = now
        self._left = _MOST_SIGNATURES
        self.problem = ""

    def paths(self, path: Path) -> Iterator[Path]:
        """Yield every path that begins with some certificates, the leaf first."""
        for candidates, ends in ((self._trusted, True), (self._sent, False)):
            for candidate in candidates:
                if candidate.subject != path[-1].issuer or _is_in(candidate, path):
                    continue
                self._left -= 1
                if self._left < 0:
                    self.problem = f"it takes over {_MOST_SIGNATURES} signatures to verify"
                    return
                problem = self._problem_of(candidate, path, ends=ends)
                if problem:
                    self.problem = self.problem or problem
                elif ends:
                    yield (*path, candidate)
                else:
                    yield from self.paths((*path, candidate))

    def _problem_of(self, issuer: Parsed, path: Path, *, ends: bool) -> str:
        """Return why a certificate cannot continue a path; "" if it can."""
        issued = path[-1]
        problem = _signature_problem(issued, issuer)
        if problem:
            return problem
        if problem := validity_problem(issuer, self._now):
            return f"{issuer} {problem}"
        if not ends and not issuer.is_ca:
            return f"{issuer} is not a CA"
        if issuer.path_length is not None and len(path) - 1 > issuer.path_length:
            return f"{issuer} allows {issuer.path_length} intermediates"
        return ""


def validity_problem(certificate: Parsed, now: dt.datetime) -> str:
    """Return why a certificate is not valid by itself; "" if it is."""
    if certificate.unknown:
        return f"has a critical extension that Go does not understand: {certificate.unknown}"
    return certificate.time_problem(now)


def verified_path(
    leaf: Parsed, sent: Sequence[Parsed], trusted: Sequence[Parsed], now: dt.datetime
) -> Path:
    """Return a path from a leaf to a trusted certificate.

    Args:
        leaf: valid by itself, and for servers.
        sent: the other certificates that the server sends.
        trusted: what the client trusts.
        now: an aware time.

    Raises:
        KeyPairError: there is none.
    """
    if any(leaf.der == one.der for one in trusted):
        return (leaf,)
    search = _Search(sent, trusted, now)
    problem = ""
    for path in search.paths((leaf,)):
        found = _usage_problem(path) or _constraint_problem(path)
        if not found:
            return path
        problem = problem or found
    raise KeyPairError(problem or search.problem or f"nothing that is trusted issued {leaf}")


def issuing_path(leaf: Parsed, sent: Sequence[Parsed]) -> Path:
    """Return a leaf and those of the others that lead on from it, whatever is trusted."""
    path: Path = (leaf,)
    left = _MOST_SIGNATURES
    while not path[-1].is_self_issued:
        named = [one for one in sent if one.subject == path[-1].issuer and not _is_in(one, path)]
        left -= len(named)
        if left < 0:
            break
        issuers = (one for one in named if not _signature_problem(path[-1], one))
        # Of a renewed certificate and its predecessor, the one that is valid longer counts.
        issuer = max(issuers, key=lambda one: one.certificate.not_valid_after_utc, default=None)
        if issuer is None:
            break
        path = (*path, issuer)
    return path


def _is_in(candidate: Parsed, path: Path) -> bool:
    """Return whether a path already has a certificate, or one of the same names and key."""
    return any(
        (candidate.subject, candidate.names, candidate.public_key)
        == (one.subject, one.names, one.public_key)
        for one in path
    )


def _signature_problem(issued: Parsed, issuer: Parsed) -> str:
    if issuer.is_ca is False or (issuer.is_ca is None and _is_version_3(issuer)):
        return f"{issuer} is not a CA"
    if not issuer.may_sign:
        return f"the key usage of {issuer} does not allow it to sign certificates"
    if problem := issuer.key_problem():
        return f"{issuer} {problem}"
    if problem := issued.signature_problem():
        return f"{issued} {problem}"
    try:
        issued.certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return f"{issuer} did not sign {issued}"
    return ""


def _is_version_3(one: Parsed) -> bool:
    return one.certificate.version is x509.Version.v3


def _usage_problem(path: Path) -> str:
    return next(
        (f"the extended key usage of {one} lacks serverAuth" for one in path if not one.serves), ""
    )


def _constraint_problem(path: Path) -> str:
    for position, issuer in enumerate(path):
        if issuer.constraints is None:
            continue
        for one in path[:position]:
            if name := _forbidden_name(one, issuer.constraints):
                return f"{issuer} may not sign for {name}"
    return ""


def _forbidden_name(one: Parsed, constraints: x509.NameConstraints) -> str:
    for permitted, subtrees in (
        (True, constraints.permitted_subtrees),
        (False, constraints.excluded_subtrees),
    ):
        domains = [tree.value for tree in subtrees or () if isinstance(tree, x509.DNSName)]
        networks = [tree.value for tree in subtrees or () if isinstance(tree, x509.IPAddress)]
        for name in one.dns_names if domains else ():
            if any(_domain_has(domain, name, permitted=permitted) for domain in domains) != (
                permitted
            ):
                return name
        for address in one.addresses if networks else ():
            if any(_network_has(network, address) for network in networks) != permitted:
                return str(address)
    return ""


def _domain_has(domain: str, name: str, *, permitted: bool) -> bool:
    domain, name = domain.lower(), name.lower()
    if not permitted and name.startswith("*."):
        # It may stand for a name in an excluded domain.
        label, _, rest = domain.lstrip(".").partition(".")
        if label and rest == name[2:]:
            return True
    if domain.startswith("."):
        return name.endswith(domain)
    return not domain or name == domain or name.endswith(f".{domain}")


def _network_has(network: object, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if not isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return False
    return network.version == address.version and address in network

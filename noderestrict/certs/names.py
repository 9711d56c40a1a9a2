"""Which names a certificate needs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from noderestrict.certs.place import CERTIFICATE
from noderestrict.certs.secret import Secret
from noderestrict.pki.check import trusted
from noderestrict.render.names import CERTIFICATE_NAMES, certificate_names

#: A name by which a Service is called.
SERVICE = re.compile(r"(?P<name>[^.]+)\.(?P<namespace>[^.]+)\.svc(\..+)?")


@dataclass(frozen=True, slots=True)
class Names:
    """DNS names and IP addresses.

    Attributes:
        given: that a new certificate gets.
        called: by which somebody calls the server; a certificate that lacks one is bad.
    """

    given: tuple[str, ...]
    called: tuple[str, ...]


def names_for(called: Iterable[str], held: Secret, namespace: str | None) -> Names:
    """Return the names that a certificate needs.

    Args:
        called: host names by which registrations call the server.
        held: the current certificate; somebody may have given it more names.
        namespace: of the Secret that holds it; None for a directory.
    """
    hosts = tuple(dict.fromkeys(called))
    wanted = [name for host in hosts for name in _with_domain(host)] + _names_in(held)
    rendered = CERTIFICATE_NAMES if namespace is None else certificate_names(namespace)
    if set(wanted) <= set(rendered):
        # A rendered registration, or none yet.
        wanted = list(rendered)
    return Names(tuple(dict.fromkeys(wanted)), hosts)


def _with_domain(host: str) -> tuple[str, ...]:
    return (host, f"{host}.cluster.local") if SERVICE.fullmatch(host) else (host,)


def _names_in(held: Secret) -> list[str]:
    """Return those names of a certificate that another one can have; none if it is unreadable."""
    links = trusted(held.get(CERTIFICATE, b""))
    names = links[0].names if links else ()
    return [one for one in names if one.isascii() and one.isprintable() and one.strip()]

"""Write webhook configurations with the CA, once API servers get answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from noderestrict.certs.authority import Signer
from noderestrict.certs.configurations import write_registration
from noderestrict.certs.errors import CertsError
from noderestrict.certs.journal import Journal
from noderestrict.certs.place import Place, trust_of
from noderestrict.certs.planned import fails_closed
from noderestrict.certs.reached import why_not_reached
from noderestrict.cluster.connection import Connection

_KIND = "ValidatingWebhookConfiguration"


async def register(
    connection: Connection,
    registrations: Sequence[Any],
    signer: Signer,
    place: Place,
    journal: Journal,
    wait: float | None,
) -> None:
    """Write webhook configurations in place of the installed ones.

    Args:
        connection: to the cluster.
        registrations: the configurations, without a CA.
        signer: says which CAs of the installed ones are kept.
        place: of the certificate, with what callers trust.
        journal: gets to know what is written.
        wait: how long an answer may take, in seconds; None if none is needed.

    Raises:
        CertsError: there is nothing to trust, or requests would be denied.
        ClusterError: a configuration could not be written.
    """
    trust = await trust_of(place)

    async def check(registration: Mapping[str, Any]) -> None:
        if wait is None or not fails_closed(registration):
            return
        if problem := await why_not_reached(connection, registration, wait):
            raise CertsError(
                f"{_KIND} {registration['metadata']['name']}: not written, because nodes would be "
                f"denied: {problem}; pass --unserved to write it all the same"
            )

    for value in registrations:
        await write_registration(connection, value, lambda old: signer.bundle(old, trust), check)
        journal.did(f"{_KIND} {value['metadata']['name']}: written")

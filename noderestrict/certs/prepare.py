"""Make the certificate, so that somebody else can apply webhook configurations without a CA.

Such as Helm. Before that, the installed ones must trust the server and get answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from noderestrict.certs import planned
from noderestrict.certs.errors import CertsError
from noderestrict.certs.journal import Journal
from noderestrict.certs.place import CA, Place
from noderestrict.cluster.connection import Connection

_REMEDY = "first install or upgrade with mode=audit"


async def installed_of(connection: Connection, registrations: Sequence[Any]) -> list[Any]:
    """Return those configurations of a plan that are installed already.

    Args:
        connection: to the cluster.
        registrations: what is planned.

    Raises:
        CertsError: nodes would be denied if the plan was applied.
        ClusterError: the cluster cannot be read.
    """
    present = []
    for value in registrations:
        name = value["metadata"]["name"]
        found = await planned.installed(connection, name)
        if name != planned.NAME and (problem := planned.why_not_safe(value, found)):
            raise CertsError(f"nodes would be denied: {problem}; {_REMEDY}")
        present += [value] if found is not None else []
    return present


async def complete(
    connection: Connection,
    present: Sequence[Mapping[str, Any]],
    place: Place,
    namespace: str,
    journal: Journal,
    wait: float,
) -> bool:
    """Give the installed configurations the webhooks that are planned, with the CA.

    Returns:
        Whether any lacked one.

    Args:
        connection: to the cluster.
        present: those of the plan that are installed.
        place: of the certificate, with what callers trust.
        namespace: of the server.
        journal: gets to know what is added.
        wait: how long an answer may take, in seconds.

    Raises:
        CertsError: nodes would be denied if the plan was applied.
        ClusterError: the cluster cannot be read or changed.
    """
    others = [one for one in present if one["metadata"]["name"] != planned.NAME]
    if any(planned.fails_closed(one) for one in others) and (
        problem := await planned.why_not_answered(connection, namespace, wait)
    ):
        raise CertsError(f"nodes would be denied: {problem}; {_REMEDY}")
    trust = (await place.read())[CA]
    added = False
    for value in present:
        name = value["metadata"]["name"]
        for webhook in await planned.complete(connection, value, trust):
            journal.did(f"{name}: webhook {webhook} is there, with the CA")
            added = True
        await planned.disown(connection, name)
    return added

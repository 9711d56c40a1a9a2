"""Token requests that are never sent to the webhook: those of pods on the API server's way to it.

An API server reaches a Service with the help of pods, such as kube-proxy's. After an outage of the
whole cluster they need a token before the webhook can be reached, and the webhook would have to
allow it first. The API server itself checks that the pod exists, that it has the uid, and that it
runs as the account. It does not check the node: a node can get a token of a pod of the same account
on another node.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.render.conditions import OPTIONAL, SYNTAXES, Condition, Syntax, among_node_users
from noderestrict.render.names import parse_namespaced_name

#: The default of a cluster that kubeadm sets up.
AUDIENCES = ("https://kubernetes.default.svc.cluster.local",)
ACCOUNTS = ("kube-system/kube-proxy",)
NAME = "not-infrastructure-token"
#: Of the token that a pod gets unless it asks for another.
SECONDS = 3607
_LISTS = re.compile(r" in \[((?:'[^']*'(?:, )?)*)\]")


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """Whose token requests are left out.

    Attributes:
        accounts: namespace/name.
        audiences: of the API server.

    Raises:
        ValueError: one of them cannot be written into a condition.
    """

    accounts: tuple[str, ...]
    audiences: tuple[str, ...] = AUDIENCES

    def __post_init__(self) -> None:
        """Check all texts: a quotation mark would end them in the condition."""
        for account in self.accounts:
            parse_namespaced_name(account)
        for audience in self.audiences:
            if not audience.isprintable() or "'" in audience or "\\" in audience:
                raise ValueError(f"audience {audience!r} has characters that no condition can hold")
        if not self.accounts or not self.audiences:
            raise ValueError("accounts and audiences cannot be empty")

    def condition(self, syntax: Syntax = OPTIONAL) -> Condition:
        """Return the match condition: true for every other request of a node."""
        bound = "object.spec.boundObjectRef"
        tests = (
            "request.operation == 'CREATE'",
            syntax.in_subresource("token"),
            "has(request.namespace) && has(request.name)",
            f"request.namespace + '/' + request.name in {_list(self.accounts)}",
            "object != null",
            f"{syntax.text(f'{bound}.apiVersion')} == 'v1'",
            f"{syntax.text(f'{bound}.kind')} == 'Pod'",
            f"{syntax.text(f'{bound}.name')} != ''",
            f"{syntax.text(f'{bound}.uid')} != ''",
            syntax.present("object.spec.audiences"),
            "size(object.spec.audiences) > 0",
            f"object.spec.audiences.all(one, one in {_list(self.audiences)})",
            syntax.present("object.spec.expirationSeconds"),
            f"object.spec.expirationSeconds <= {SECONDS}",
        )
        return among_node_users(NAME, f"!({' && '.join(tests)})")


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(repr, texts))}]"


def infrastructure_of(expression: str) -> Infrastructure | None:
    """Return what a rendered condition leaves out; None if it was not rendered here."""
    lists = [re.findall(r"'([^']*)'", found) for found in _LISTS.findall(expression)]
    if len(lists) != 2:
        return None
    try:
        found = Infrastructure(tuple(lists[0]), tuple(lists[1]))
    except ValueError:
        return None
    rendered = (found.condition(syntax)["expression"] for syntax in SYNTAXES)
    return found if expression in rendered else None


def infrastructure_in(webhooks: Iterable[Mapping[str, Any]]) -> Infrastructure | None:
    """Return whose token requests the webhooks of a registration leave out; None for nobody's."""
    for webhook in webhooks:
        for condition in webhook.get("matchConditions") or ():
            found = infrastructure_of(str(condition.get("expression")))
            if found is not None:
                return found
    return None

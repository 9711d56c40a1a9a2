"""A rule: the requests that it denies, and its metadata.

A rule is written once, as a function decorated with ``@rule`` in ``policy/rules``. The evaluation
order, the tables in the documentation, the modes, the registration's match conditions and the
guarded fields of an audit log are derived from it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.cel import Form, Uncovered
from noderestrict.policy.decision import Decision, Denied, Question
from noderestrict.policy.features import GATES
from noderestrict.policy.releases import ALWAYS, LATEST_MINOR, OLDEST_MINOR, Part, Since

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"
OPERATIONS = (CREATE, UPDATE, DELETE)
ANY = "*"

#: group, resource, subresource (``*`` any), operation (``*`` any)
Key = tuple[str, str, str, str]
Check = Callable[[Attributes], Decision | None]

_ID = re.compile(r"[a-z-]+/[a-z-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Requests that rules judge, and the objects that these rules read.

    Attributes:
        group: API group, "" for the core group.
        resource: plural.
        sub_resource: "" for none, ``*`` for any.
        operation: CREATE, UPDATE, DELETE, or ``*`` for any.
        kind: of the objects that the rules read.
        new: the Struct of the object, which is then required; None if no rule reads it.
        old: the Struct of the existing object, likewise.
        old_may_lack: whether the existing object may be null; the rules then look it up.
        whole: whether the rules compare whole objects, as JSON.
    """

    group: str
    resource: str
    sub_resource: str
    operation: str
    kind: str = ""
    new: type[msgspec.Struct] | None = None
    old: type[msgspec.Struct] | None = None
    old_may_lack: bool = False
    whole: bool = False

    @property
    def key(self) -> Key:
        """A key that is unique to this target."""
        return self.group, self.resource, self.sub_resource, self.operation


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with its metadata.

    Attributes:
        id: its name in messages, metrics, modes and audit annotations, such as ``nodes/taints``.
        demands: what it requires of a request, for the tables in the documentation.
        targets: the requests that it judges; none if it is checked before all other rules.
        since: which releases have it.
        parts: of it that are newer.
        fields: paths of the fields that it compares with the existing object on UPDATE.
        gate: the feature gate that controls it, "" for none.
        strict: whether it goes beyond the in-tree plugin and is off by default.
        by_name: whether it denies by names in the request only, whatever the objects contain.
        cel: its CEL form, or why it has none; None if nobody has said.
        check: returns an objection without its id, or None.
    """

    id: str
    demands: str
    targets: tuple[Target, ...] = ()
    since: Since = ALWAYS
    parts: tuple[Part, ...] = ()
    fields: tuple[str, ...] = ()
    gate: str = ""
    strict: bool = False
    by_name: bool = False
    cel: Form | Uncovered | None = None
    check: Check = lambda _request: None

    def named(self, found: Decision) -> Decision:
        """Return an objection of this rule, with its id."""
        if isinstance(found, Denied):
            return replace(found, rule=self.id)
        if isinstance(found, Question):
            return replace(found, otherwise=replace(found.otherwise, rule=self.id))
        return found

    def __post_init__(self) -> None:
        """Reject inconsistent metadata when the rule is imported."""
        problems = {
            "the id is not GROUP/NAME": not _ID.fullmatch(self.id),
            "demands is empty": not self.demands,
            "since is not a version": not OLDEST_MINOR <= self.since.minor <= LATEST_MINOR,
            f"gate {self.gate!r} is unknown": bool(self.gate) and self.gate not in GATES,
            "fields are compared on UPDATE only": bool(self.fields)
            and not any(target.operation in (UPDATE, ANY) for target in self.targets),
        }
        for problem, found in problems.items():
            if found:
                raise ValueError(f"rule {self.id!r}: {problem}")


def rule(
    id_: str,
    *targets: Target,
    demands: str,
    cel: Form | Uncovered,
    since: Since = ALWAYS,
    parts: Sequence[Part] = (),
    fields: Sequence[str] = (),
    gate: str = "",
    strict: bool = False,
    by_name: bool = False,
) -> Callable[[Check], Rule]:
    """Return a decorator that makes a function a rule; the arguments are those of ``Rule``."""

    def make(check: Check) -> Rule:
        return Rule(
            id_,
            demands,
            targets,
            since,
            tuple(parts),
            tuple(fields),
            gate,
            strict,
            by_name,
            cel,
            check,
        )

    return make


def rules_of(module: Any) -> list[Rule]:
    """Return the rules of a module in the order of their definition, which is evaluation order."""
    return [value for value in vars(module).values() if isinstance(value, Rule)]

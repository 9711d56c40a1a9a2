"""A rule: what it refuses, with all that the rest of the product must know about it.

A rule is written once, as a function under ``@rule`` in ``policy/rules``. The evaluation order, the
tables in the documentation, the modes, the registration's conditions and the guarded fields of an
audit log are derived from what stands there.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from noderestrict.policy.attributes import Attributes
from noderestrict.policy.decision import Decision, Denied, Question
from noderestrict.policy.features import GATES, LATEST_MINOR, OLDEST_MINOR

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"
OPERATIONS = (CREATE, UPDATE, DELETE)
ANY = "*"

#: group, resource, subresource (``*`` any), operation (``*`` any)
Key = tuple[str, str, str, str]
Check = Callable[[Attributes], Decision | None]

_ID = re.compile(r"[a-z-]+/[a-z-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Requests that rules judge, and what these rules read.

    Attributes:
        group: API group, "" for the core group.
        resource: plural.
        sub_resource: "" for none, ``*`` for any.
        operation: CREATE, UPDATE, DELETE, or ``*`` for any.
        kind: of the objects that the rules read.
        new: the Struct of the object, which must be there; None if no rule reads it.
        old: the Struct of the existing object, likewise.
        old_may_lack: the existing object may be null; the rules look it up then.
        whole: the rules compare whole objects, as JSON.
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
        """What tells this target from all others."""
        return self.group, self.resource, self.sub_resource, self.operation


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with its metadata.

    Attributes:
        id: as messages, metrics, modes and audit annotations name it, such as ``nodes/taints``.
        demands: what a request must hold to, for the tables in the documentation.
        targets: the requests that it judges; none for what is checked before all other rules.
        since: the first Kubernetes minor version whose in-tree plugin has it, as measured from 1.25
            on: 25 is "1.25 or older".
        fields: paths of the fields that it compares with the existing object on UPDATE.
        gate: the feature gate that switches it, "" for none.
        strict: it goes beyond the in-tree plugin, and is off unless the operator asks for it.
        by_name: it refuses by the names in the request alone, whatever the objects hold.
        check: returns an objection without its id, or None.
    """

    id: str
    demands: str
    targets: tuple[Target, ...] = ()
    since: int = OLDEST_MINOR
    fields: tuple[str, ...] = ()
    gate: str = ""
    strict: bool = False
    by_name: bool = False
    check: Check = lambda _request: None

    def objection(self, request: Attributes) -> Decision | None:
        """Return what the rule objects to, under its id; None if it does not."""
        found = self.check(request)
        if found is None:
            return None
        if isinstance(found, Denied):
            return replace(found, rule=self.id)
        if isinstance(found, Question):
            return replace(found, otherwise=replace(found.otherwise, rule=self.id))
        return found

    def __post_init__(self) -> None:
        """Refuse metadata that contradicts itself, when the rule is imported."""
        problems = {
            "the id is not GROUP/NAME": not _ID.fullmatch(self.id),
            "demands is empty": not self.demands,
            "since is not a version": not OLDEST_MINOR <= self.since <= LATEST_MINOR,
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
    since: int = OLDEST_MINOR,
    fields: Sequence[str] = (),
    gate: str = "",
    strict: bool = False,
    by_name: bool = False,
) -> Callable[[Check], Rule]:
    """Make a function a rule; the arguments are those of ``Rule``."""

    def make(check: Check) -> Rule:
        return Rule(id_, demands, targets, since, tuple(fields), gate, strict, by_name, check)

    return make


def rules_of(module: Any) -> list[Rule]:
    """Return the rules of a module in the order of their definition: that of evaluation."""
    return [value for value in vars(module).values() if isinstance(value, Rule)]

"""Who is granted what, and by which binding of which role.

Source: pkg/registry/rbac/validation/rule.go of Kubernetes. Bindings are read in the order in which
they are given, those of the whole cluster first.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from noderestrict.api import rbacv1
from noderestrict.api.resources import qualified
from noderestrict.rbac.rules import Request, Rule
from noderestrict.rbac.selectors import selects
from noderestrict.rbac.subjects import User, account_user


class Reference(NamedTuple):
    """Names a role or a binding.

    Attributes:
        kind: such as ``ClusterRole``.
        namespace: "" for those of the whole cluster.
        name: of the object.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Return kind and name as people write them."""
        return f"{self.kind} {qualified(self.namespace, self.name)}"


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule that a user has, and where it comes from.

    Attributes:
        rule: of the role.
        namespace: in which it holds, "" for all of them, and for what is in none.
        binding: that grants it.
        role: that has it.
        subject: of the binding that means the user, such as ``Group system:serviceaccounts``.
    """

    rule: Rule
    namespace: str
    binding: Reference
    role: Reference
    subject: str

    @property
    def source(self) -> str:
        """Binding and role, as people write them."""
        return f"{self.binding} → {self.role}"


@dataclass(frozen=True, slots=True)
class _Bound:
    """A subject of a binding; bindings are ordered by their number."""

    number: int
    binding: Reference
    role: Reference
    subject: str


@dataclass(slots=True)
class RBAC:
    """The roles and bindings of a cluster.

    Attributes:
        roles: the rules of each role.
        bound: the role of each binding.
        dangling: bindings to roles that do not exist, with these roles: they grant nothing.
        gathering: ClusterRoles that have the rules of others, by their labels.
    """

    roles: dict[Reference, tuple[Rule, ...]] = field(default_factory=dict)
    bound: dict[Reference, Reference] = field(default_factory=dict)
    dangling: list[tuple[Reference, Reference]] = field(default_factory=list)
    gathering: set[Reference] = field(default_factory=set)
    _by_user: dict[str, list[_Bound]] = field(default_factory=lambda: defaultdict(list))
    _by_group: dict[str, list[_Bound]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, roles: Iterable[rbacv1.Role], bindings: Iterable[rbacv1.RoleBinding]) -> "RBAC":
        """Return what roles and bindings grant.

        Args:
            roles: Roles and ClusterRoles; those with a namespace are Roles.
            bindings: RoleBindings and ClusterRoleBindings, likewise.
        """
        rbac = cls()
        for role in roles:
            rules = tuple(map(Rule.of, role.rules or ()))
            reference = _reference("Role", role.metadata)
            rbac.roles[reference] = rules
            if role.aggregationRule and role.aggregationRule.clusterRoleSelectors:
                rbac.gathering.add(reference)
        found = sorted(bindings, key=lambda one: bool(one.metadata and one.metadata.namespace))
        for number, binding in enumerate(found):
            rbac._bind(number, binding)
        return rbac

    def _bind(self, number: int, binding: rbacv1.RoleBinding) -> None:
        reference = _reference("RoleBinding", binding.metadata)
        role = _role_of(binding.roleRef, reference.namespace)
        self.bound[reference] = role
        if role not in self.roles:
            self.dangling.append((reference, role))
            return
        for subject in binding.subjects or ():
            kind, name = subject.kind or "", subject.name or ""
            if kind == "User":
                index, key = self._by_user, name
            elif kind == "Group":
                index, key = self._by_group, name
            elif kind == "ServiceAccount" and (
                namespace := subject.namespace or reference.namespace
            ):
                index, key = self._by_user, account_user(namespace, name)
                name = qualified(namespace, name)
            else:
                continue
            index[key].append(_Bound(number, reference, role, f"{kind} {name}"))

    def grants(self, user: User, namespace: str | None = None) -> list[Grant]:
        """Return all rules that a user has, those of the whole cluster first.

        Args:
            user: with the groups.
            namespace: to leave out what holds only in others; "" leaves only what holds everywhere.
        """
        return list(self._grants(user, namespace))

    def _grants(self, user: User, namespace: str | None) -> Iterator[Grant]:
        bound: dict[int, _Bound] = {}
        for one in self._bound(user):
            bound.setdefault(one.number, one)
        for _, one in sorted(bound.items()):
            where = one.binding.namespace
            if namespace is None or where in ("", namespace):
                for rule in self.roles[one.role]:
                    yield Grant(rule, where, one.binding, one.role, one.subject)

    def _bound(self, user: User) -> Iterator[_Bound]:
        yield from self._by_user.get(user.name, ())
        for group in sorted(user.groups):
            yield from self._by_group.get(group, ())

    def allows(self, user: User, request: Request) -> Grant | None:
        """Return what allows a request, None if RBAC does not allow it.

        Another authorizer may: the API server allows the group system:masters everything.
        """
        for grant in self._grants(user, request.namespace):
            if grant.rule.allows(request):
                return grant
        return None

    def users(self) -> list[str]:
        """Return all user names that bindings name, service accounts among them."""
        return sorted(self._by_user)

    def groups(self) -> list[str]:
        """Return all groups that bindings name."""
        return sorted(self._by_group)


def _reference(kind: str, metadata: object) -> Reference:
    namespace = getattr(metadata, "namespace", None) or ""
    name = getattr(metadata, "name", None) or ""
    return Reference(kind if namespace else f"Cluster{kind}", namespace, name)


def _role_of(reference: rbacv1.RoleRef | None, namespace: str) -> Reference:
    kind = (reference.kind if reference else None) or ""
    name = (reference.name if reference else None) or ""
    return Reference(kind, namespace if kind == "Role" else "", name)


def aggregated(roles: Sequence[rbacv1.Role]) -> list[rbacv1.Role]:
    """Return ClusterRoles with the rules that the controller will gather for them.

    The API server goes by the rules alone, which the controller fills in within moments. Manifests
    that were never installed do not have them yet.

    Args:
        roles: of a cluster; Roles among them stay as they are.

    Source: pkg/controller/clusterroleaggregation of Kubernetes.
    """
    found = list(roles)
    empty = [at for at, role in enumerate(found) if role.aggregationRule and not role.rules]
    changed = bool(empty)
    # What one gathers another one may gather from it.
    while changed:
        changed = False
        for at in empty:
            rules = _gathered(found[at], found)
            changed |= rules != (found[at].rules or [])
            found[at] = replace(found[at], rules=rules)
    return found


def _gathered(role: rbacv1.Role, roles: Sequence[rbacv1.Role]) -> list[rbacv1.PolicyRule]:
    rules: list[rbacv1.PolicyRule] = []
    others = [one for one in roles if _is_cluster_role(one) and one is not role]
    others.sort(key=lambda one: (one.metadata and one.metadata.name) or "")
    rule = role.aggregationRule
    for selector in (rule and rule.clusterRoleSelectors) or ():
        for other in others:
            if other.metadata and selects(selector, other.metadata.labels):
                rules += (one for one in other.rules or () if one not in rules)
    return rules


def _is_cluster_role(role: rbacv1.Role) -> bool:
    return role.metadata is not None and not role.metadata.namespace

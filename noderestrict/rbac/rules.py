"""One rule of a role, and the requests that it allows.

Source: pkg/apis/rbac/v1/evaluation_helpers.go and plugin/pkg/auth/authorizer/rbac of Kubernetes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from noderestrict.api import rbacv1

ALL = "*"


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for: a resource, or a path that is none.

    Attributes:
        verb: in lower case.
        group: API group, "" for the core group.
        resource: plural, "" for a path.
        sub_resource: "" for none.
        namespace: "" for none.
        name: of the object; "" where the request names none, as most creates, lists and watches.
        path: of a request for no resource, such as ``/metrics``.
    """

    verb: str
    group: str = ""
    resource: str = ""
    sub_resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def combined(self) -> str:
        """The resource with its subresource."""
        return f"{self.resource}/{self.sub_resource}" if self.sub_resource else self.resource


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a role; everything that it names is combined with everything else.

    Attributes:
        verbs: or ``*``.
        groups: API groups, "" for the core group, or ``*``.
        resources: plural, with a subresource after a slash; ``*`` is all of both, and
            ``*/scale`` is this subresource of all. ``pods/*`` is nothing.
        names: of objects; none for any, even where a request names no object.
        paths: that are no resources; ``*`` at the end stands for anything.
    """

    verbs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, rule: rbacv1.PolicyRule) -> "Rule":
        """Return a rule as the API has it."""
        return cls(
            tuple(rule.verbs or ()),
            tuple(rule.apiGroups or ()),
            tuple(rule.resources or ()),
            tuple(rule.resourceNames or ()),
            tuple(rule.nonResourceURLs or ()),
        )

    def allows(self, request: Request) -> bool:
        """Return whether the rule allows a request, in whatever namespace."""
        if not _has(self.verbs, request.verb):
            return False
        if not request.resource:
            return self.allows_path(request.path)
        return (
            _has(self.groups, request.group)
            and self.covers(request.resource, request.sub_resource)
            and (not self.names or request.name in self.names)
        )

    def covers(self, resource: str, sub_resource: str = "") -> bool:
        """Return whether the rule speaks of a resource, of whatever group and verb."""
        combined = f"{resource}/{sub_resource}" if sub_resource else resource
        of_all = f"{ALL}/{sub_resource}" if sub_resource else ALL
        return any(one in (ALL, combined, of_all) for one in self.resources)

    def allows_path(self, path: str) -> bool:
        """Return whether the rule speaks of a path that is no resource."""
        return any(
            one in (ALL, path) or (one.endswith(ALL) and path.startswith(one.rstrip(ALL)))
            for one in self.paths
        )

    def verbs_of(
        self, verbs: Iterable[str], group: str, resource: str, sub_resource: str = ""
    ) -> tuple[str, ...]:
        """Return which of some verbs the rule grants on a resource, for any object or named ones.

        Args:
            verbs: to look for.
            group: API group of the resource.
            resource: plural.
            sub_resource: "" for none.
        """
        if not (_has(self.groups, group) and self.covers(resource, sub_resource)):
            return ()
        return tuple(verb for verb in verbs if _has(self.verbs, verb))

    @property
    def is_everything(self) -> bool:
        """Whether the rule allows all verbs on all objects."""
        return all(ALL in one for one in (self.verbs, self.groups, self.resources)) and not (
            self.names
        )


def _has(given: tuple[str, ...], wanted: str) -> bool:
    return ALL in given or wanted in given

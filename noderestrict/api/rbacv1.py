"""rbac.authorization.k8s.io/v1: roles and their bindings."""

import msgspec

from noderestrict.api.metav1 import LabelSelector, ObjectMeta


class PolicyRule(msgspec.Struct):
    """What a role grants."""

    verbs: list[str] | None = None
    apiGroups: list[str] | None = None
    resources: list[str] | None = None
    resourceNames: list[str] | None = None
    nonResourceURLs: list[str] | None = None


class AggregationRule(msgspec.Struct):
    """Which ClusterRoles a controller gathers the rules of a ClusterRole from."""

    clusterRoleSelectors: list[LabelSelector] | None = None


class Role(msgspec.Struct):
    """A Role or a ClusterRole."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    rules: list[PolicyRule] | None = None
    aggregationRule: AggregationRule | None = None


class Subject(msgspec.Struct):
    """Whom a binding grants a role."""

    kind: str | None = None
    name: str | None = None
    namespace: str | None = None


class RoleRef(msgspec.Struct):
    """The role that a binding grants."""

    kind: str | None = None
    name: str | None = None


class RoleBinding(msgspec.Struct):
    """A RoleBinding or a ClusterRoleBinding."""

    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    subjects: list[Subject] | None = None
    roleRef: RoleRef | None = None

"""admissionregistration.k8s.io/v1: ValidatingAdmissionPolicy and its binding.

Unlike the other Structs of this package, these know every field, and refuse others: a misspelt
``matchConditions`` would change what a policy refuses.
"""

from typing import Any, Literal

import msgspec

API_VERSIONS = ("admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1")
POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT", "*"]
Action = Literal["Deny", "Warn", "Audit"]


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class PolicyMeta(msgspec.Struct):
    """Metadata, of which the name alone has a meaning here."""

    name: str = ""
    annotations: dict[str, str] | None = None


class LabelSelectorRequirement(_Strict):
    """An entry of ``matchExpressions``."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None


class LabelSelector(_Strict):
    """Labels that an object must have; an empty one matches everything."""

    matchLabels: dict[str, str] | None = None
    matchExpressions: list[LabelSelectorRequirement] | None = None


class NamedRuleWithOperations(_Strict):
    """Requests that a policy is for; ``*`` in a list means all."""

    apiGroups: list[str]
    apiVersions: list[str]
    operations: list[Operation]
    resources: list[str]
    resourceNames: list[str] | None = None
    scope: Literal["*", "Cluster", "Namespaced"] | None = "*"


class MatchResources(_Strict):
    """Requests that a policy or a binding is for."""

    namespaceSelector: LabelSelector | None = None
    objectSelector: LabelSelector | None = None
    resourceRules: list[NamedRuleWithOperations] | None = None
    excludeResourceRules: list[NamedRuleWithOperations] | None = None
    matchPolicy: Literal["Exact", "Equivalent"] | None = "Equivalent"


class MatchCondition(_Strict):
    """A condition without which a policy says nothing."""

    name: str
    expression: str


class Variable(_Strict):
    """An expression that others refer to as ``variables.<name>``."""

    name: str
    expression: str


class Validation(_Strict):
    """An expression that must be true."""

    expression: str
    message: str = ""
    messageExpression: str = ""
    reason: Literal["Forbidden", "Invalid", "RequestEntityTooLarge"] = "Invalid"


class AuditAnnotation(_Strict):
    """A text for the audit event of the request."""

    key: str
    valueExpression: str


class ParamKind(_Strict):
    """The kind of a policy's parameters."""

    apiVersion: str = ""
    kind: str = ""


class PolicySpec(_Strict):
    """What a policy demands of which requests."""

    matchConstraints: MatchResources
    validations: list[Validation] | None = None
    paramKind: ParamKind | None = None
    failurePolicy: Literal["Fail", "Ignore"] | None = "Fail"
    auditAnnotations: list[AuditAnnotation] | None = None
    matchConditions: list[MatchCondition] | None = None
    variables: list[Variable] | None = None


class BindingSpec(_Strict):
    """Where a policy is in force, and what becomes of a request that it refuses."""

    policyName: str
    validationActions: list[Action]
    paramRef: Any = None
    matchResources: MatchResources | None = None


class ValidatingAdmissionPolicy(_Strict):
    """A policy."""

    apiVersion: str
    kind: Literal["ValidatingAdmissionPolicy"]
    metadata: PolicyMeta
    spec: PolicySpec
    status: Any = None


class ValidatingAdmissionPolicyBinding(_Strict):
    """A binding, without which its policy does nothing."""

    apiVersion: str
    kind: Literal["ValidatingAdmissionPolicyBinding"]
    metadata: PolicyMeta
    spec: BindingSpec

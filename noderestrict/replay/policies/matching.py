"""Say which requests a policy or a binding is for.

Sources: apiserver/pkg/admission/plugin/policy/matching/matching.go and
pkg/admission/plugin/webhook/predicates.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noderestrict.api.admissionregistrationv1 import (
    LabelSelector,
    MatchResources,
    NamedRuleWithOperations,
)
from noderestrict.api.resources import REVIEWS

#: The label with its name that every namespace has.
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
#: About these, none but those from files.
_ADMISSION = "admissionregistration.k8s.io"
_FROM_FILES_ONLY = frozenset(
    (_ADMISSION, f"{kind}admission{what}")
    for kind in ("validating", "mutating")
    for what in ("policies", "policybindings")
)
#: Ends the names of policies that an API server reads from files.
_STATIC = ".static.k8s.io"
_UNKNOWN_NAMESPACE = "the labels of the namespace are not known"

Request = Mapping[str, Any]


def is_exempt(request: Request, policy: str) -> bool:
    """Return whether an API server never asks a policy about a request, whatever it matches.

    Args:
        request: with ``requestResource``.
        policy: its name.
    """
    resource = request["requestResource"]
    asked = resource["group"], resource["resource"]
    return asked in REVIEWS or (asked in _FROM_FILES_ONLY and not policy.endswith(_STATIC))


def matches(criteria: MatchResources, request: Request, objects: Sequence[Any]) -> tuple[bool, str]:
    """Return whether criteria include a request, and what cannot be told; "" for nothing.

    Args:
        criteria: of a policy or a binding.
        request: with ``resource`` and ``requestResource``.
        objects: the new and the existing object, None for none.
    """
    by_namespace = _by_namespace(criteria.namespaceSelector, request, objects)
    if by_namespace is False or not _by_object(criteria.objectSelector, objects):
        return False, ""
    exact = criteria.matchPolicy == "Exact"
    if _any_rule(criteria.excludeResourceRules or (), request, exact=exact):
        return False, ""
    rules = criteria.resourceRules
    if rules and not _any_rule(rules, request, exact=exact):
        return False, ""
    return True, _UNKNOWN_NAMESPACE if by_namespace is None else ""


def _by_namespace(
    selector: LabelSelector | None, request: Request, objects: Sequence[Any]
) -> bool | None:
    if selector is None or not _selects(selector):
        return True
    resource = request["requestResource"]["resource"]
    if (
        resource == "namespaces"
        and not request.get("subResource")
        and request["operation"] in ("CREATE", "UPDATE")
    ):
        return selected(selector, _labels(objects[0]))
    namespace = request.get("namespace")
    if not namespace:
        return True
    keys = {*(selector.matchLabels or ()), *(one.key for one in selector.matchExpressions or ())}
    if keys == {_NAMESPACE_NAME}:
        return selected(selector, {_NAMESPACE_NAME: namespace})
    return None


def _by_object(selector: LabelSelector | None, objects: Sequence[Any]) -> bool:
    if selector is None or not _selects(selector):
        return True
    return any(one is not None and selected(selector, _labels(one)) for one in objects)


def _selects(selector: LabelSelector) -> bool:
    return bool(selector.matchLabels or selector.matchExpressions)


def selected(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a selector selects an object with some labels."""
    if any(labels.get(key) != value for key, value in (selector.matchLabels or {}).items()):
        return False
    for one in selector.matchExpressions or ():
        here, values = one.key in labels, one.values or ()
        within = here and labels[one.key] in values
        holds = {"In": within, "NotIn": not within, "Exists": here, "DoesNotExist": not here}
        if not holds[one.operator]:
            return False
    return True


def _labels(value: Any) -> Mapping[str, str]:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return labels if isinstance(labels, dict) else {}


def _any_rule(rules: Iterable[NamedRuleWithOperations], request: Request, *, exact: bool) -> bool:
    # The object came in the version of "resource", which is an equivalent of what was requested.
    resources = [request["requestResource"]]
    if not exact and request["resource"] not in resources:
        resources.append(request["resource"])
    return any(
        _rule(rule, request, resource)
        and (not rule.resourceNames or request.get("name", "") in rule.resourceNames)
        for rule in rules
        for resource in resources
    )


def _rule(rule: NamedRuleWithOperations, request: Request, resource: Mapping[str, str]) -> bool:
    return (
        _listed(rule.operations, request["operation"])
        and _listed(rule.apiGroups, resource["group"])
        and _listed(rule.apiVersions, resource["version"])
        and any(
            _resource(one, resource["resource"], request.get("subResource", ""))
            for one in rule.resources
        )
        and _in_scope(rule.scope, resource, request.get("namespace", ""))
    )


def _listed(values: Sequence[str], wanted: str) -> bool:
    return "*" in values or wanted in values


def _resource(pattern: str, resource: str, sub_resource: str) -> bool:
    main, _, sub = pattern.partition("/")
    return main in ("*", resource) and sub in ("*", sub_resource)


def _in_scope(scope: str | None, resource: Mapping[str, str], namespace: str) -> bool:
    if scope in (None, "*"):
        return True
    # A request for a Namespace has a namespace: its own.
    of_cluster = not namespace or resource == {
        "group": "",
        "version": "v1",
        "resource": "namespaces",
    }
    return of_cluster == (scope == "Cluster")

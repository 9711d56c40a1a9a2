"""Read ValidatingAdmissionPolicies and their bindings, and check them as an API server does.

Source: pkg/apis/admissionregistration/validation/validation.go.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from noderestrict.api.admissionregistrationv1 import (
    API_VERSIONS,
    BINDING,
    POLICY,
    MatchResources,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from noderestrict.errors import NoderestrictError
from noderestrict.policy.cel import is_identifier
from noderestrict.policy.text import printable
from noderestrict.replay.documents import documents
from noderestrict.replay.sources import MIB, STDIN, Document, Unreadable

_T = TypeVar("_T")
_SUFFIXES = (".yaml", ".yml", ".json")
#: Files of a folder of policies that are none.
_OTHER_KINDS = ("Kustomization", "Component", "AdmissionConfiguration")
_MAX_BYTES = 16 * MIB
_MOST_CONDITIONS = 64
_LONGEST = 60


class PolicyError(NoderestrictError, ValueError):
    """A policy cannot be used; the message names file, object, field and value, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies and their bindings, checked.

    Attributes:
        policies: by name, each with where it was read.
        bindings: likewise.
    """

    policies: dict[str, tuple[ValidatingAdmissionPolicy, str]]
    bindings: dict[str, tuple[ValidatingAdmissionPolicyBinding, str]]


def read(paths: Iterable[str], max_bytes: int = _MAX_BYTES) -> PolicySet:
    """Return the policies and bindings of some files and folders.

    Args:
        paths: JSON or YAML, a document, several or a List; a folder is read with those in it.
        max_bytes: limit for each file, unpacked.

    Raises:
        PolicyError: one cannot be read, or an API server would refuse it.
    """
    found = PolicySet({}, {})
    for path in paths:
        before = len(found.policies) + len(found.bindings)
        for file in _files(path):
            for document in documents(file, max_bytes):
                if isinstance(document, Unreadable):
                    raise PolicyError(str(document))
                _add_document(found, document)
        if len(found.policies) + len(found.bindings) == before:
            raise PolicyError(f"{path}: it holds no {POLICY} and no {BINDING}")
    _check_bindings(found)
    return found


def convert(objects: Iterable[Any]) -> PolicySet:
    """Return policies and bindings that are at hand.

    Args:
        objects: as JSON decodes them.

    Raises:
        PolicyError: one is none, or an API server would refuse it.
    """
    found = PolicySet({}, {})
    for value in objects:
        _add(found, value, "")
    _check_bindings(found)
    return found


def _files(path: str) -> Iterator[str]:
    folder = Path(path)
    if path == STDIN or not folder.is_dir():
        yield path
        return
    try:
        files = sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror or error}") from None
    yield from map(str, files)


def _add_document(found: PolicySet, document: Document) -> None:
    where = f"{document.file}:{document.line}" if document.line > 1 else document.file
    try:
        value = msgspec.json.decode(document.raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PolicyError(f"{where}: {str(error) or 'it is nested too deeply'}") from None
    if isinstance(value, dict):
        if document.kind:
            value.setdefault("kind", document.kind)
            value.setdefault("apiVersion", API_VERSIONS[0])
        if value.get("kind") in _OTHER_KINDS:
            return
    _add(found, value, where)


def _add(found: PolicySet, value: Any, where: str) -> None:
    at = f"{where}: " if where else ""
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in (POLICY, BINDING):
        what = f"kind {_shown(kind)}" if isinstance(value, dict) else f"a {type(value).__name__}"
        raise PolicyError(f"{at}{what} is no {POLICY} and no {BINDING}")
    version = value.get("apiVersion")
    if version not in API_VERSIONS:
        raise PolicyError(
            f"{at}{kind}: apiVersion: {_shown(version)} is none of {', '.join(API_VERSIONS)}"
        )
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise PolicyError(f"{at}{kind}: metadata.name: {_shown(name)} is no name")
    at += f"{kind} {_shown(name)}: "
    if kind == POLICY:
        policy = _converted(value, ValidatingAdmissionPolicy, at)
        _check_policy(policy, at)
        _store(found.policies, name, (policy, where), at)
    else:
        binding = _converted(value, ValidatingAdmissionPolicyBinding, at)
        _check_binding(binding, at)
        _store(found.bindings, name, (binding, where), at)


def _converted(value: Any, struct: type[_T], at: str) -> _T:
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).rpartition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        if not problem:
            raise PolicyError(f"{at}{error}") from None
        shown = _at(value, path)
        raise PolicyError(f"{at}{path}: {shown}{problem[0].lower()}{problem[1:]}") from None


def _at(value: Any, path: str) -> str:
    """Return the value at a path, to be shown, if it is short and there."""
    for step in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError):
            return ""
    return "" if isinstance(value, dict | list) else f"{_shown(value)}: "


def _store(into: dict[str, tuple[_T, str]], name: str, found: tuple[_T, str], at: str) -> None:
    if name in into:
        raise PolicyError(f"{at}it is also in {into[name][1] or 'the same set'}")
    into[name] = found


def _check_policy(policy: ValidatingAdmissionPolicy, at: str) -> None:
    spec = policy.spec
    _check_match(spec.matchConstraints, f"{at}spec.matchConstraints")
    if not spec.matchConstraints.resourceRules:
        raise PolicyError(f"{at}spec.matchConstraints.resourceRules: at least one is needed")
    if not spec.validations and not spec.auditAnnotations:
        raise PolicyError(f"{at}spec: it has no validations and no auditAnnotations")
    conditions, variables = spec.matchConditions or (), spec.variables or ()
    if len(conditions) > _MOST_CONDITIONS:
        raise PolicyError(
            f"{at}spec.matchConditions: {len(conditions)} are more than {_MOST_CONDITIONS}"
        )
    _check_names((one.name for one in conditions), f"{at}spec.matchConditions", bool)
    _check_names((one.name for one in variables), f"{at}spec.variables", is_identifier)
    annotations = spec.auditAnnotations or ()
    _check_names((one.key for one in annotations), f"{at}spec.auditAnnotations", bool, "key")
    for number, validation in enumerate(spec.validations or ()):
        where = f"{at}spec.validations[{number}]"
        for field in ("message", "messageExpression"):
            value = getattr(validation, field)
            if value and not value.strip():
                raise PolicyError(f"{where}.{field}: {_shown(value)} is blank")
        if re.search(r"[\n\r]", validation.message.strip()):
            raise PolicyError(
                f"{where}.message: {_shown(validation.message)} has more than one line"
            )


def _check_match(match: MatchResources, at: str) -> None:
    for field in ("resourceRules", "excludeResourceRules"):
        for number, rule in enumerate(getattr(match, field) or ()):
            for name in ("apiGroups", "apiVersions", "operations", "resources"):
                values = getattr(rule, name)
                where = f"{at}.{field}[{number}].{name}"
                if not values or (name != "apiGroups" and "" in values):
                    raise PolicyError(f"{where}: {_shown(values)}: a value is missing")
                if "*" in values and len(values) > 1 and name != "resources":
                    raise PolicyError(f"{where}: {_shown(values)}: * means all the others, too")


def _check_binding(binding: ValidatingAdmissionPolicyBinding, at: str) -> None:
    spec = binding.spec
    actions = spec.validationActions
    where = f"{at}spec.validationActions: {_shown(actions)}"
    if not spec.policyName:
        raise PolicyError(f"{at}spec.policyName: it is empty")
    if not actions:
        raise PolicyError(f"{where}: at least one is needed")
    if len(set(actions)) < len(actions):
        raise PolicyError(f"{where}: one is there twice")
    if {"Deny", "Warn"}.issubset(actions):
        raise PolicyError(f"{where}: Deny and Warn exclude each other")
    if spec.matchResources is not None:
        _check_match(spec.matchResources, f"{at}spec.matchResources")


def _check_bindings(found: PolicySet) -> None:
    for name, (binding, where) in found.bindings.items():
        policy = binding.spec.policyName
        if policy not in found.policies:
            at = f"{where}: " if where else ""
            raise PolicyError(
                f"{at}{BINDING} {_shown(name)}: spec.policyName: no {POLICY} {_shown(policy)} given"
            )


def _check_names(
    names: Iterable[str], at: str, valid: Callable[[str], object], field: str = "name"
) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names):
        if not valid(name):
            raise PolicyError(f"{at}[{number}].{field}: {_shown(name)} is no name")
        if name in seen:
            raise PolicyError(f"{at}[{number}].{field}: {_shown(name)} is there twice")
        seen.add(name)


def _shown(value: Any) -> str:
    is_quoted = isinstance(value, str) and not (value.isprintable() and value.strip())
    text = repr(value) if is_quoted else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

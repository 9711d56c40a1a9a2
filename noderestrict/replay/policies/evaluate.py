"""Judge requests by ValidatingAdmissionPolicies and their bindings.

A request is judged as the API server that sent the review judges it. Its objects are taken as they
are in the review, which is how an API server hands them to expressions: it writes both with the
same encoder. One thing is evened out, for reviews that no API server wrote: members that are null
are left out, as decoding into a Go type and encoding it again does; a label or annotation that is
null becomes "", for the same reason.

What only an API server knows is said instead of guessed: parameters, the authorizer, labels of
namespaces. Not counted is what an expression costs, which an API server limits.

Source: apiserver/pkg/admission/plugin/policy/validating, dispatcher.go and validator.go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noderestrict.api.admissionregistrationv1 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
    Validation,
)
from noderestrict.replay.policies import cel
from noderestrict.replay.policies.documents import PolicyError, PolicySet
from noderestrict.replay.policies.matching import is_exempt, matches

_CODES = {"Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
#: An error, and what gives no reason.
_INVALID = "Invalid"
_LONGEST_MESSAGE = 5 * 1024
_LONGEST_ANNOTATION = 10 * 1024
_LONGEST_INT = 1 << 63


@dataclass(frozen=True, slots=True)
class Objection:
    """A request does not satisfy a policy.

    Attributes:
        policy: name of the policy.
        binding: name of the binding.
        actions: what becomes of it: Deny, Warn, Audit.
        index: of the validation, counted from 0; None for the policy as a whole.
        message: of the validation, or of the error.
        reason: such as Forbidden.
        is_error: whether an expression has no value, and the failure policy decided.
    """

    policy: str
    binding: str
    actions: tuple[str, ...]
    index: int | None
    message: str
    reason: str = _INVALID
    is_error: bool = False

    @property
    def code(self) -> int:
        """HTTP status of a denial."""
        return _CODES[self.reason]

    @property
    def denies(self) -> bool:
        """Whether the request is refused because of it."""
        return "Deny" in self.actions

    def __str__(self) -> str:
        """Return what the requester sees of a denial."""
        return (
            f"ValidatingAdmissionPolicy '{self.policy}' with binding '{self.binding}' denied "
            f"request: {self.message}"
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What policies say about a request.

    Attributes:
        objections: in the order of policies, bindings and validations.
        annotations: of the audit event: ``<policy>/<key>``.
        unknown: what an API server knows and replay does not, in words; without it nothing more
            than the objections can be told.
        matched: names of the policies that had a say: they and a binding of theirs are for such a
            request, and their match conditions hold.
    """

    objections: tuple[Objection, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    matched: frozenset[str] = frozenset()

    @property
    def denial(self) -> Objection | None:
        """The objection that the requester sees; None if none denies."""
        return next((one for one in self.objections if one.denies), None)

    @property
    def allowed(self) -> bool | None:
        """Whether the request passes; None if that cannot be told."""
        if self.denial is not None:
            return False
        return None if self.unknown else True

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the requester is warned of."""
        return tuple(
            f"Validation failed for ValidatingAdmissionPolicy '{one.policy}' with binding "
            f"'{one.binding}': {one.message}"
            for one in self.objections
            if "Warn" in one.actions
        )


class Policies:
    """Compiled policies with their bindings, in force together.

    Args:
        found: read and checked.

    Raises:
        PolicyError: an expression cannot be compiled.
        MissingLibraryError: there is no library to compile it with.
    """

    def __init__(self, found: PolicySet) -> None:
        bindings: dict[str, list[ValidatingAdmissionPolicyBinding]] = {}
        for binding, _ in found.bindings.values():
            bindings.setdefault(binding.spec.policyName, []).append(binding)
        self._policies = [
            (_Policy(policy, where), bindings.get(name, []))
            for name, (policy, where) in found.policies.items()
        ]

    @property
    def unbound(self) -> tuple[str, ...]:
        """Names of the policies without a binding, which do nothing."""
        return tuple(policy.name for policy, bindings in self._policies if not bindings)

    @property
    def messages(self) -> dict[str, tuple[str, ...]]:
        """The messages of the validations of each policy with a binding, by its name."""
        return {policy.name: policy.messages for policy, bindings in self._policies if bindings}

    def judge(self, request: Mapping[str, Any]) -> Judgement:
        """Return what the policies say about a request.

        Args:
            request: of an AdmissionReview, as JSON decodes it.
        """
        try:
            if _has_nul(request):
                return Judgement(unknown=("the CEL library ends texts at a NUL character",))
            review = _Review(request)
        except RecursionError:
            return Judgement(unknown=("the objects are nested too deeply",))
        objections: list[Objection] = []
        annotations: dict[str, list[str]] = {}
        unknown: list[str] = []
        matched = set()
        for policy, bindings in self._policies:
            if not bindings or is_exempt(review.request, policy.name):
                continue
            included, why = matches(policy.constraints, review.request, review.objects)
            if not included:
                continue
            verdict: _Verdict | None = None
            for binding in bindings:
                criteria = binding.spec.matchResources
                too = (True, "")
                if criteria is not None:
                    too = matches(criteria, review.request, review.objects)
                if not too[0]:
                    continue
                if doubt := why or too[1]:
                    unknown.append(f"{policy.name}: {doubt}")
                    continue
                verdict = verdict or policy.judge(review)
                unknown += [f"{policy.name}: {one}" for one in verdict.unknown]
                if not verdict.applies:
                    continue
                matched.add(policy.name)
                name, actions = binding.metadata.name, tuple(binding.spec.validationActions)
                objections += [
                    Objection(policy.name, name, one.actions or actions, *one.rest)
                    for one in verdict.found
                ]
                for key, value in verdict.annotations.items():
                    values = annotations.setdefault(f"{policy.name}/{key}", [])
                    if value not in values:
                        values.append(value)
        joined = {key: ", ".join(values) for key, values in annotations.items()}
        return Judgement(tuple(objections), joined, tuple(unknown), frozenset(matched))


@dataclass(slots=True)
class _Found:
    """An objection of a policy, whatever the binding; actions only if the binding has no say."""

    index: int | None
    message: str
    reason: str = _INVALID
    is_error: bool = False
    actions: tuple[str, ...] = ()

    @property
    def rest(self) -> tuple[int | None, str, str, bool]:
        return self.index, self.message, self.reason, self.is_error


@dataclass(slots=True)
class _Verdict:
    applies: bool = True
    found: list[_Found] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class _Policy:
    """A compiled policy."""

    def __init__(self, policy: ValidatingAdmissionPolicy, where: str) -> None:
        spec = policy.spec
        self.name = policy.metadata.name
        self.constraints = spec.matchConstraints
        self._fails = spec.failurePolicy != "Ignore"
        self._params = spec.paramKind is not None
        self._at = f"{where}: " if where else ""
        # As when a policy is stored: match conditions know no variables.
        conditions, compiler = cel.Compiler(), cel.Compiler()
        self._conditions = [
            self._compiled(conditions, one.expression, f"matchConditions[{n}].expression", cel.BOOL)
            for n, one in enumerate(spec.matchConditions or ())
        ]
        self._variables = {
            one.name: self._variable(compiler, one.name, one.expression, n)
            for n, one in enumerate(spec.variables or ())
        }
        self._validations = [
            self._validation(compiler, one, f"validations[{n}]")
            for n, one in enumerate(spec.validations or ())
        ]
        self._annotations = [
            (
                one.key,
                self._compiled(
                    compiler,
                    one.valueExpression.strip(),
                    f"auditAnnotations[{n}].valueExpression",
                    cel.STRING,
                    cel.NULL,
                ),
            )
            for n, one in enumerate(spec.auditAnnotations or ())
        ]

    @property
    def messages(self) -> tuple[str, ...]:
        """The messages of its validations."""
        return tuple(validation.message for validation, _, _ in self._validations)

    def _validation(
        self, compiler: cel.Compiler, validation: Validation, at: str
    ) -> tuple[Validation, cel.Program, cel.Program | None]:
        message = None
        if validation.messageExpression:
            message = self._compiled(
                compiler, validation.messageExpression, f"{at}.messageExpression", cel.STRING
            )
        condition = self._compiled(compiler, validation.expression, f"{at}.expression", cel.BOOL)
        return validation, condition, message

    def _compiled(
        self, compiler: cel.Compiler, text: str, field_: str, *returns: str
    ) -> cel.Program:
        try:
            return compiler.compile(text, returns)
        except cel.CompileError as error:
            raise self._error(field_, error) from None

    def _variable(self, compiler: cel.Compiler, name: str, text: str, n: int) -> cel.Program:
        try:
            return compiler.variable(name, text)
        except cel.CompileError as error:
            raise self._error(f"variables[{n}].expression", error) from None

    def _error(self, field_: str, error: cel.CompileError) -> PolicyError:
        return PolicyError(
            f"{self._at}ValidatingAdmissionPolicy {self.name}: spec.{field_}: {error}"
        )

    def judge(self, review: "_Review") -> _Verdict:
        """Return what the policy says, whatever its bindings."""
        if self._params:
            return _Verdict(applies=False, unknown=["parameters are not evaluated"])
        values = cel.Values(review.variables, self._variables)
        verdict = self._matched(values)
        if not verdict.applies or verdict.found:
            return verdict
        for index, (validation, condition, message) in enumerate(self._validations):
            try:
                holds = values.value(condition)
            except cel.UnknownError as error:
                verdict.unknown.append(str(error))
                continue
            except cel.EvaluationError as error:
                if self._fails:
                    verdict.found.append(_failure(condition, error, index))
                continue
            if holds is not True:
                text = _message(validation, message, values)
                verdict.found.append(_Found(index, text, validation.reason))
        for key, program in self._annotations:
            self._annotate(key, program, values, verdict)
        return verdict

    def _matched(self, values: cel.Values) -> _Verdict:
        """Return whether the match conditions hold; the first that is false decides."""
        problems, unknown = [], []
        for condition in self._conditions:
            try:
                if values.value(condition) is False:
                    return _Verdict(applies=False)
            except cel.UnknownError as error:
                unknown.append(str(error))
            except cel.EvaluationError as error:
                problems.append(_failure(condition, error, None))
        if unknown:
            return _Verdict(applies=False, unknown=unknown)
        if problems and not self._fails:
            return _Verdict(applies=False)
        return _Verdict(found=problems[:1])

    def _annotate(
        self, key: str, program: cel.Program, values: cel.Values, verdict: _Verdict
    ) -> None:
        try:
            value = values.value(program)
        except cel.UnknownError as error:
            verdict.unknown.append(str(error))
            return
        except cel.EvaluationError as error:
            # It denies whatever the binding's actions are.
            if self._fails:
                found = _failure(program, error, None)
                found.actions = ("Deny",)
                verdict.found.append(found)
            return
        if isinstance(value, str) and (text := value.strip()):
            verdict.annotations[key] = text.encode()[:_LONGEST_ANNOTATION].decode(errors="ignore")


def _failure(program: cel.Program, error: cel.EvaluationError, index: int | None) -> _Found:
    message = f"expression '{program.text}' resulted in error: {error}"
    return _Found(index, message, is_error=True)


def _message(validation: Validation, expression: cel.Program | None, values: cel.Values) -> str:
    text = ""
    if expression is not None:
        try:
            found = values.value(expression)
            text = found.strip() if isinstance(found, str) else ""
        except (cel.EvaluationError, cel.UnknownError):
            text = ""
        if len(text.encode()) > _LONGEST_MESSAGE or "\n" in text:
            text = ""
    return (
        text or validation.message.strip() or f"failed expression: {validation.expression.strip()}"
    )


class _Review:
    """A request as match criteria and expressions see it."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.objects: Sequence[Any] = [
            _evened(request.get(name)) for name in ("object", "oldObject")
        ]
        self.request = _request(request)
        new, old = self.objects
        self.variables = {"request": self.request, "object": new, "oldObject": old}


_KIND = ("group", "version", "kind")
_RESOURCE = ("group", "version", "resource")
_USER = ("username", "uid", "groups", "extra")


def _request(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variable ``request``; what is empty and may be left out, is left out."""
    kind, resource = given.get("kind"), given.get("resource")
    user = given.get("userInfo") or {}
    request = {
        "kind": _members(kind, _KIND),
        "resource": _members(resource, _RESOURCE),
        "requestKind": _members(given.get("requestKind") or kind, _KIND),
        "requestResource": _members(given.get("requestResource") or resource, _RESOURCE),
        "operation": given.get("operation") or "",
        "userInfo": {name: user[name] for name in _USER if user.get(name)},
        "dryRun": given.get("dryRun") is True,
    }
    sub = given.get("subResource")
    request["requestSubResource"] = given.get("requestSubResource") or sub
    for name in ("subResource", "name", "namespace"):
        request[name] = given.get(name)
    found = {name: value for name, value in request.items() if value not in ("", None)}
    found["options"] = _evened(given.get("options"))
    return found


def _members(value: Any, names: Sequence[str]) -> dict[str, str]:
    given = value if isinstance(value, dict) else {}
    return {name: given.get(name) or "" for name in names}


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(one) for key, one in value.items())
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _evened(value: Any) -> Any:
    """Return an object as Go encodes it: without nulls, and with numbers that Go has."""
    if isinstance(value, dict):
        evened = {key: _evened(one) for key, one in value.items() if one is not None}
        for name in ("labels", "annotations"):
            texts = value.get(name)
            if isinstance(texts, dict):
                evened[name] = {
                    key: "" if one is None else _evened(one) for key, one in texts.items()
                }
        return evened
    if isinstance(value, list):
        return [_evened(one) for one in value]
    if isinstance(value, int) and not -_LONGEST_INT <= value < _LONGEST_INT:
        return float(value)
    return value

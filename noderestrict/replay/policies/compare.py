"""Compare the verdicts of policies with those of the rules.

A policy covers a rule if the message of one of its validations begins with the rule's id, as those
of rendered policies do. What a rule refuses that no policy covers, policies may allow.

A request counts as refused if a policy objects, whatever its binding makes of that: the rules are
judged without their modes, too.
"""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from noderestrict import admission
from noderestrict.agents.agents import RULE_PREFIX
from noderestrict.agents.agents import RULES as AGENT_RULES
from noderestrict.policy.hostile import brief
from noderestrict.policy.rules.review import NODE_NAME
from noderestrict.policy.table import RULE_IDS
from noderestrict.replay.cases import Expectation
from noderestrict.replay.policies.evaluate import Judgement, Objection, Policies
from noderestrict.replay.results import Result

#: Why reads are not judged.
NOT_FOR_POLICIES = "authorization, of which policies know nothing"


class _Circumstances(msgspec.Struct, rename="camel"):
    """What a request holds that no rule reads."""

    request_kind: Any = None
    request_resource: Any = None
    request_sub_resource: Any = None
    options: Any = None


class _Review(msgspec.Struct):
    request: _Circumstances


_rest = msgspec.json.Decoder(_Review)


class Compared(NamedTuple):
    """What policies say of a request, and whether the rules say the same.

    Attributes:
        result: with the verdict of the policies; that of the rules if something is unknown.
        unknown: what cannot be told, in words; "" for nothing.
        other: a policy that had a say and covers no rule, so that what it reads is not known;
            "" for none.
    """

    result: Result
    unknown: str = ""
    other: str = ""


class PolicyJudge:
    """Judges requests by policies, and expects what the rules say.

    Args:
        policies: compiled.

    Attributes:
        covered: the rules that the policies cover.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        covered = {
            name: {rule for rule in map(rule_of, messages) if rule}
            for name, messages in policies.messages.items()
        }
        self.covered = frozenset().union(*covered.values())
        self._others = frozenset(name for name, rules in covered.items() if not rules)

    def compared(
        self, request: admission.Request, result: Result, review: bytes | msgspec.Raw = b""
    ) -> Compared:
        """Return what the policies say of a request.

        Args:
            request: with its objects as JSON.
            result: of the rules.
            review: that the request was decoded from; b"" for none.
        """
        try:
            asked = _asked(request, review)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Compared(result, f"the request cannot be decoded for policies: {brief(error)}")
        judgement = self._policies.judge(asked)
        refused = judgement.denial or next(iter(judgement.objections), None)
        if judgement.unknown and refused is None:
            return Compared(result, judgement.unknown[0])
        found = replace(result, lookups=(), detail="", **_verdict(refused))
        other = min(judgement.matched & self._others, default="")
        return Compared(self._expecting(found, result, judgement), "", other)

    def _expecting(self, found: Result, rules: Result, judgement: Judgement) -> Result:
        """Return a verdict of policies with what the rules make one expect."""
        if not rules.allowed and not self._covers(rules, judgement):
            return replace(found, uncovered=rules.rule if found.allowed else "")
        code = None if rules.allowed else rules.code
        ok = rules.allowed == found.allowed
        if not ok and found.allowed:
            found = replace(found, detail=f"{rules.rule}: {rules.explanation}")
        return replace(found, expect=Expectation(rules.allowed, code), ok=ok)

    def _covers(self, rules: Result, judgement: Judgement) -> bool:
        rule = rules.rule
        if rule == NODE_NAME.id:
            # It is checked for every resource, and policies are for those of their rules only.
            return rule in self.covered and bool(judgement.matched)
        # What an agent's rule looks up, no policy knows.
        return rule in self.covered and not (rules.agent and rules.lookups)


def rule_of(message: str) -> str:
    """Return the rule that the message of a validation begins with; "" for none."""
    rule, colon, _ = message.partition(":")
    return rule if colon and (rule in RULE_IDS or _is_of_agent(rule)) else ""


def _is_of_agent(rule: str) -> bool:
    return rule.startswith(RULE_PREFIX) and rule.rpartition("/")[2] in AGENT_RULES


def _verdict(refused: Objection | None) -> dict[str, Any]:
    if refused is None:
        return {"allowed": True, "code": HTTPStatus.OK, "reason": "", "rule": "", "message": ""}
    message = refused.message
    if not refused.denies:
        message += f" ({' and '.join(refused.actions)} only)"
    return {
        "allowed": False,
        "code": refused.code,
        "reason": refused.reason,
        "rule": rule_of(refused.message) or refused.policy,
        "message": message,
    }


def _asked(request: admission.Request, review: bytes | msgspec.Raw) -> Mapping[str, Any]:
    """Return a request as a review holds it.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: an object cannot be decoded.
    """
    user = request.user
    api_version, kind = request.kind or ("", "")
    group, _, version = api_version.rpartition("/")
    asked = {
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {
            "group": request.group,
            "version": request.version,
            "resource": request.resource,
        },
        "subResource": request.sub_resource,
        "name": request.name,
        "namespace": request.namespace,
        "operation": request.operation,
        "userInfo": {
            "username": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": msgspec.json.decode(user.extra),
        },
        "dryRun": request.dry_run,
        "object": _decoded(request.object),
        "oldObject": _decoded(request.old_object),
    }
    if review:
        asked.update(msgspec.to_builtins(_rest.decode(review).request))
    return asked


def _decoded(value: Any) -> Any:
    raw = value if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
    return msgspec.json.decode(raw)

"""Does each rule hold? The probes of ``noderestrict verify`` find out."""

import re
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.probe import is_from_webhook, probe
from noderestrict.doctor.restore import restore
from noderestrict.doctor.servers import enforced_release
from noderestrict.policy.releases import LATEST
from noderestrict.render.policy_flags import policy_flags
from noderestrict.verify.identity import (
    impersonated,
    missing_rights,
    own_identity,
    unsendable,
)
from noderestrict.verify.observe import NoNodesError, Observer
from noderestrict.verify.results import (
    ADMISSION,
    FAILS,
    HOLDS,
    NOTHING,
    OURS,
    UNTOLD,
    Findings,
    RuleResult,
    wrongly_refused,
)
from noderestrict.verify.run import Options, verify

#: Whose requests are sent where there is no node yet.
_NO_NODE = "noderestrict-doctor"
_OURS_FAILED = re.compile(r"webhook \S+\.noderestrict\.io (?:did not answer|could not decide)")
_ROLE = "noderestrict-verify"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield whether the rules hold, with one finding for each group of them."""
    refusal = await probe(cluster)
    if refusal is not None and is_from_webhook(refusal) and refusal.code != HTTPStatus.FORBIDDEN:
        # Each of the requests that follow would wait for its time-out.
        yield _silent(str(refusal), cluster.options.logs)
        return
    who = await own_identity(cluster.connection)
    if who.node is None and (why_not := unsendable(cluster.connection)):
        yield unknown(why_not, "run this check without --as", "noderestrict doctor")
        return
    node = who.node or await _some_node(cluster)
    if who.node is None and (missing := await missing_rights(cluster.connection, node)):
        yield unknown(
            f"you may not {' and '.join(missing)}",
            "grant yourself that for as long as the check takes, or run it as an administrator",
            _granting(node, who.user),
        )
        return
    options = cluster.options
    release = await enforced_release(cluster)
    wanted = Options(node, options.extra, release, options.configuration, options.connect)
    found = await verify(cluster.connection, wanted)
    failing = any(rule.result == FAILS for rule in found.rules)
    again = await restore(cluster) if failing else ""
    for group, rules in _groups(found).items():
        yield _Group(cluster, group, rules, wanted, again, all_read=found.all_read).finding()


async def _some_node(cluster: Cluster) -> str:
    try:
        return await Observer(cluster.connection).choose_node()
    except NoNodesError:
        return _NO_NODE


def _groups(findings: Findings) -> Mapping[str, Sequence[RuleResult]]:
    """Return the rules of the admission half by group; another check asks the authorizer."""
    groups: dict[str, list[RuleResult]] = {}
    for rule in findings.rules:
        if rule.half == ADMISSION:
            groups.setdefault(rule.rule.partition("/")[0], []).append(rule)
    return groups


def _granting(node: str, user: str) -> str:
    names = [f"--resource-name={name}" for _, name in impersonated(node)]
    role = ["kubectl", "create", "clusterrole", _ROLE, "--verb=impersonate"]
    binding = ["kubectl", "create", "clusterrolebinding", _ROLE, f"--clusterrole={_ROLE}"]
    return "\n".join(
        shlex.join(words)
        for words in (
            [*role, "--resource=users,groups", *names],
            [*binding, f"--user={user or 'USER'}"],
        )
    )


def _silent(why: str, logs: str) -> Finding:
    return failed(f"the webhook did not answer: {why}", "check that the server is running", logs)


class _Group:
    """The rules whose ids begin alike.

    Args:
        cluster: where they were tried out.
        name: of the group.
        rules: what was found out about each.
        wanted: what was tried out.
        again: commands that install the rendered objects again, if a rule does not hold.
        all_read: whether all objects could be read that requests may be about.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        rules: Sequence[RuleResult],
        wanted: Options,
        again: str,
        *,
        all_read: bool,
    ) -> None:
        self._options = cluster.options
        self._name = name
        self._rules = rules
        self._again = again
        self._all_read = all_read
        flags = [f"--node={wanted.node}", *policy_flags(cluster.options.extra)]
        if wanted.release != LATEST:
            flags.append(f"--rules={wanted.release}")
        if cluster.options.configuration != Options().configuration:
            flags.append(f"--webhook-configuration={cluster.options.configuration}")
        if cluster.options.connect:
            host, port = cluster.options.connect
            flags.append(f"--connect={f'[{host}]' if ':' in host else host}:{port}")
        self._verify = shlex.join(["noderestrict", "verify", *flags])

    def finding(self) -> Finding:
        """Return the worst that is true of any rule."""
        silent = [text for rule in self._with(UNTOLD) for text in rule.why if _failed(text)]
        if silent:
            return _silent(f"{self._name}: {silent[0]}", self._options.logs)
        return self._audited() if self._options.audited else self._enforced()

    def _enforced(self) -> Finding:
        if failing := self._with(FAILS):
            return failed(
                self._text("does not hold", failing),
                "register the webhook and enforce its rules: audit mode denies nothing",
                f"{self._verify}\n{self._again}",
            )
        return self._others("holds")

    def _audited(self) -> Finding:
        mode = self._options.expected_mode
        if honest := [one for one in self._with(FAILS) if wrongly_refused(one.half, one.attempts)]:
            return failed(
                self._text("refuses what nodes need", honest),
                "find out who refuses it",
                self._verify,
            )
        if held := [one for one in self._with(HOLDS) if OURS in one.by]:
            return failed(
                f"{self._name}: the webhook denies requests, other than in mode {mode}: "
                f"{', '.join(one.rule for one in held)}",
                "run the servers in that mode",
                "kubectl apply -k manifests/overlays/audit",
            )
        return self._others(f"as in mode {mode}")

    def _others(self, well: str) -> Finding:
        """Return what is true of a group none of whose rules is wrong."""
        if untold := self._with(UNTOLD):
            if self._all_read and all(map(_lacks_its_objects, untold)):
                return warned(
                    self._text("could not be tried", untold),
                    "nothing, or run it again once there is one",
                    self._verify,
                )
            return unknown(
                self._text("could not be told", untold), "see what is missing", self._verify
            )
        applicable = [one for one in self._rules if one.result != NOTHING]
        if not applicable:
            return warned(
                self._text("not applicable", self._rules),
                "nothing, unless the API server should serve it",
                self._verify,
            )
        by = dict.fromkeys(name for one in applicable for name in one.by)
        held = f" by {', '.join(by)}" if by else ""
        return passed(f"{self._name}: {well}{held} ({len(applicable)} of {len(self._rules)} rules)")

    def _with(self, result: str) -> list[RuleResult]:
        return [one for one in self._rules if one.result == result]

    def _text(self, what: str, rules: Sequence[RuleResult]) -> str:
        named = ", ".join(one.rule for one in rules)
        return f"{self._name}: {what}: {named}: {rules[0].why[0]}"


def _lacks_its_objects(rule: RuleResult) -> bool:
    """Tell whether a rule is untold only because the cluster has nothing to send requests about."""
    return not any(one.request for one in rule.attempts if one.outcome.state == UNTOLD)


def _failed(text: str) -> bool:
    return _OURS_FAILED.search(text) is not None


CHECK = Check("rules", "Does each rule hold, by requests of a node that are not stored?", check)

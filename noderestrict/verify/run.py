"""Try out every rule on a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import DECODE_ERRORS
from noderestrict.cluster.server_info import server_version
from noderestrict.errors import NoderestrictError
from noderestrict.graph.edges import Vertex
from noderestrict.graph.rules import Access, authorize
from noderestrict.policy import features
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import LATEST, Release
from noderestrict.policy.table import RULES
from noderestrict.probes import access
from noderestrict.probes.observed import MADE_UP, InapplicableError, MissingError, Observed
from noderestrict.probes.probe import Probe
from noderestrict.probes.request import Request, user_of
from noderestrict.probes.table import PROBES, expected_rules, probes_for
from noderestrict.verify.answers import outcome_of, passed, untold
from noderestrict.verify.direct import WOULD_BE, Address, OurWebhook, find_our_webhook
from noderestrict.verify.identity import missing_rights, own_identity, status_of, unsendable
from noderestrict.verify.observe import Observer
from noderestrict.verify.release import release_of
from noderestrict.verify.results import (
    ADMISSION,
    AUTHORIZER,
    NOTHING,
    OURS,
    PASSED,
    REFUSED,
    UNTOLD,
    Attempt,
    Findings,
    Outcome,
    RuleResult,
    judge,
)

_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
#: Texts of the in-tree Node authorizer, of Kubernetes 1.25 to 1.37.
_IN_TREE = (
    "no relationship found between node",
    "unknown node for user",
    "can only get",
    "can only read",
    "can only create token",
    "can only access",
    "can only list/watch",
    "cannot read",
    "cannot get subresource",
    "No Object name found",
    "not allowed to get service accounts",
)
NODE_AUTHORIZER, OUR_AUTHORIZER = "Node authorizer", "noderestrict authorizer"
NOBODY = "no authorizer allows it"


class IdentityError(NoderestrictError):
    """Requests of the node that was asked for cannot be sent with the credential and its flags."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to try out.

    Attributes:
        node: the node whose requests to send; None for that of the credential, or for any.
        extra: the policy beyond the in-tree plugin that the cluster must hold.
        release: whose rules the cluster must hold.
        configuration: name of our ValidatingWebhookConfiguration.
        connect: where our webhook can be reached from here, if not at its registered URL.
    """

    node: str | None = None
    extra: Extra = field(default_factory=Extra)
    release: Release = LATEST
    configuration: str = "noderestrict"
    connect: Address | None = None


async def verify(connection: Connection, options: Options) -> Findings:
    """Return what holds in a cluster.

    Args:
        connection: to the API server, as a user who may impersonate nodes, or as a node.
        options: what to try out.

    Raises:
        ClusterError: the cluster does not answer, or has no nodes.
        IdentityError: the credential is that of another node, or impersonates another user.
    """
    minor, patch = await server_version(connection)
    who = await own_identity(connection)
    observer = Observer(connection)
    if who.node and options.node and who.node != options.node:
        raise IdentityError(
            f"the credential is that of node {who.node}, not of --node {options.node}"
        )
    if not who.node and (why_not := unsendable(connection)):
        raise IdentityError(why_not)
    node = options.node or who.node or await observer.choose_node()
    observed = await observer.observe(node, minor, options.extra)
    notes = observer.notes
    all_read = not notes
    registered, ours = await _our_webhook(connection, options, notes)
    blocked = "" if who.node else await _blocked(connection, node)
    tried = _Trial(connection, observed, ours, own_user=who.user if who.node else None)
    by_probe = {probe: await tried.attempt(probe, blocked) for probe in _wanted(options)}
    if ours is not None and ours.why_not:
        notes.append(f"noderestrict's webhook was not asked directly: {ours.why_not}")
    results = [
        *_admission_results(by_probe, options, registered=registered),
        *[await tried.access_result(rule, options.release) for rule in access.ACCESS_RULES],
    ]
    return Findings(
        node=node,
        user=who.user,
        impersonated=who.node is None,
        version=f"1.{minor}.{patch}",
        release=release_of(results),
        notes=tuple(dict.fromkeys([*([blocked] if blocked else []), *notes])),
        all_read=all_read,
        rules=tuple(results),
    )


def _wanted(options: Options) -> list[Probe]:
    rules = set(expected_rules(options.extra.rules, options.release))
    return [
        probe
        for probe in PROBES
        if rules.intersection(probe.rules) and probe.since.includes(options.release)
    ]


async def _our_webhook(
    connection: Connection, options: Options, notes: list[str]
) -> tuple[bool, OurWebhook | None]:
    """Return whether our webhook is registered, as far as can be read, and the webhook."""
    try:
        found = await find_our_webhook(connection, options.configuration, options.connect)
    except ClusterError as error:
        notes.append(f"whether noderestrict's webhook is registered is unknown: {error}")
        return False, None
    return found is not None, found


async def _blocked(connection: Connection, node: str) -> str:
    """Return why we cannot send a node's requests, "" if we can."""
    try:
        missing = await missing_rights(connection, node)
    except ClusterError:
        # The API server checks it again with each request.
        return ""
    if not missing:
        return ""
    return (
        f"you may not {' and '.join(missing)}: grant yourself that, or pass the kubeconfig of a "
        f"kubelet"
    )


class _Trial:
    """Sends requests of one node.

    Args:
        connection: to the API server.
        observed: what requests are built from.
        ours: our webhook, if it is registered.
        own_user: the user that sends its own requests; None to impersonate.
    """

    def __init__(
        self,
        connection: Connection,
        observed: Observed,
        ours: OurWebhook | None,
        own_user: str | None,
    ) -> None:
        self._connection = connection
        self._observed = observed
        self._ours = ours
        self._own_user = own_user

    async def attempt(self, probe: Probe, blocked: str) -> Attempt:
        """Return what becomes of a probe's request.

        Args:
            probe: to send.
            blocked: why it cannot be sent, "" if it can.
        """
        direct = None
        try:
            request = probe.request(self._observed)
        except MissingError as error:
            text, outcome = "", untold(str(error))
        except InapplicableError as error:
            text, outcome = "", Outcome(NOTHING, message=str(error))
        else:
            text = str(request)
            outcome = untold(blocked) if blocked else await self._outcome(probe, request)
            if self._ours is not None:
                direct = await self._ours.ask(request)
        return Attempt(probe.what, text, probe.hostile, probe.since, outcome, direct)

    async def _outcome(self, probe: Probe, request: Request) -> Outcome:
        headers: Mapping[str, str] = request.headers
        if self._own_user is not None:
            if request.user != self._own_user:
                return untold(f"only who may impersonate {request.user!r} can try it out")
            headers = {}
        try:
            answer, _ = await self._connection.send(
                request.method,
                request.path,
                request.body,
                query=request.query,
                headers=headers,
                content_type=request.content_type,
            )
        except ClusterError as error:
            outcome = outcome_of(request, error, probe.invalid)
        else:
            # What answers a TokenRequest holds a token, which nobody is to see.
            kept = not request.api.dry_run or not probe.kept or _keeps(answer, probe.kept)
            if not kept:
                return Outcome(NOTHING, message=f"the API server drops {'.'.join(probe.kept)}")
            outcome = passed()
        if outcome.state == PASSED and probe.granted is not None:
            return await self._unless_granted(probe.granted(self._observed))
        return outcome

    async def _unless_granted(self, grant: Access) -> Outcome:
        """Return the outcome of a request that passed: nothing follows if it was granted."""
        try:
            granted = await self._allowed(grant)
        except ClusterError as error:
            return untold(f"whether the node may {grant} is unknown: {error}")
        if granted.state == PASSED:
            return untold(f"the cluster's authorizers let the node {grant}: {granted.message}")
        return passed()

    async def access_result(self, rule: access.AccessRule, release: Release) -> RuleResult:
        """Return whether the authorizers hold a rule as of a release."""
        attempts = [
            await self._asked(question)
            for question in rule.questions
            if question.since.includes(release)
        ]
        return judge(AUTHORIZER, rule.id, rule.demands, attempts)

    async def _asked(self, question: access.Question) -> Attempt:
        try:
            asked = question.ask(self._observed)
        except MissingError as error:
            return Attempt(question.what, "", question.hostile, question.since, untold(str(error)))
        try:
            outcome = await self._allowed(asked)
        except ClusterError as error:
            outcome = untold(str(error))
        known = question.since.includes(Release(self._observed.minor))
        if not question.hostile and outcome.state == REFUSED and not known:
            outcome = Outcome(NOTHING, message=f"nodes may do that since {question.since}")
        return Attempt(
            question.what,
            f"{user_of(asked.node)}: {asked}",
            question.hostile,
            question.since,
            outcome,
        )

    async def _allowed(self, asked: Access) -> Outcome:
        """Return whether the cluster's authorizers allow an access.

        Raises:
            ClusterError: they could not be asked.
        """
        answer = await self._connection.post(_ACCESS_REVIEWS, access.review(asked))
        status = status_of(answer)
        reason = str(status.get("reason") or status.get("evaluationError") or "")
        if status.get("allowed"):
            return passed(reason)
        return Outcome(REFUSED, self._authorizers(asked, reason), reason)

    def _authorizers(self, asked: Access, reason: str) -> str:
        """Return which authorizers about nodes gave a reason not to allow an access."""
        found = []
        gates = features.defaults(self._observed.minor)
        ours = authorize(asked, _NOTHING_REACHED, gates).reason
        if any(text in reason.replace(ours, "") if ours else text in reason for text in _IN_TREE):
            found.append(NODE_AUTHORIZER)
        if ours and ours in reason:
            found.append(OUR_AUTHORIZER)
        return " and ".join(found) or NOBODY


class _NothingReached:
    def reaches(self, _node: str, _vertex: Vertex) -> bool:
        """Return whether a node may reach an object."""
        return False


_NOTHING_REACHED = _NothingReached()


def _keeps(answer: bytes, path: Sequence[str]) -> bool:
    """Tell whether an object still has what a request put at a path."""
    try:
        value: Any = msgspec.json.decode(answer)
    except DECODE_ERRORS:
        return True
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return MADE_UP in msgspec.json.encode(value).decode()


def _admission_results(
    by_probe: Mapping[Probe, Attempt], options: Options, *, registered: bool
) -> list[RuleResult]:
    demands = {rule.id: rule.demands for rule in RULES}
    results = []
    for rule in expected_rules(options.extra.rules, options.release):
        attempts = [by_probe[probe] for probe in probes_for(rule) if probe in by_probe]
        ours = _role_of_ours(attempts) if registered else ""
        results.append(judge(ADMISSION, rule, demands[rule], attempts, ours))
    return results


def _role_of_ours(attempts: Sequence[Attempt]) -> str:
    """Return what our webhook has to do with a rule, in words."""
    hostile = [one for one in attempts if one.hostile]
    texts = []
    states = {one.outcome.state for one in hostile}
    if any(one.outcome.by == OURS for one in hostile):
        texts.append("refuses")
    elif PASSED in states:
        texts.append("lets pass")
    elif REFUSED in states:
        texts.append("not reached")
    asked = [one.direct for one in hostile if one.direct is not None]
    if asked and (said := _directly(asked)) not in texts:
        texts.append(f"asked directly: {said}")
    if any(one.direct is not None and one.direct.state == REFUSED and not one.hostile
           for one in attempts):  # fmt: skip
        texts.append("refuses honest requests")
    return "; ".join(texts)


def _directly(asked: Sequence[Outcome]) -> str:
    if any(one.state == UNTOLD for one in asked):
        return "could not decide"
    through = [one for one in asked if one.state == PASSED]
    if not through:
        return "refuses"
    return "would refuse" if all(one.message == WOULD_BE for one in through) else "lets pass"

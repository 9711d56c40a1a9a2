"""Who judges a decoded request."""

from collections.abc import Mapping, Set
from functools import partial
from typing import Protocol

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied, Question
from noderestrict.policy.listers import Listers
from noderestrict.policy.settings import Settings


class Judge(Protocol):
    """Answers a request within a deadline."""

    def allowed(self, request: admission.Request) -> Allowed | None:
        """Return that a request is allowed, if that is certain without waiting for anything."""

    async def judge(
        self,
        request: admission.Request,
        deadline: float,
        skipped: Set[str] = frozenset(),
        peer: str = "",
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        """Return the decision.

        Args:
            request: a decoded AdmissionReview's.
            deadline: of time.monotonic(), seconds.
            skipped: ids of rules that do not count.
            peer: address of the client.
            run: runs the rules.
        """

    def checks(self) -> Mapping[str, bool]:
        """Return what readiness depends on, by name."""

    def details(self) -> Mapping[str, str]:
        """Return what there is to say on checks, by their names."""


class LocalJudge:
    """Judges with look-ups that are in memory; no cluster is asked."""

    def __init__(self, settings: Settings, listers: Listers) -> None:
        self._settings = settings
        self._listers = listers

    def allowed(self, request: admission.Request) -> Allowed | None:
        """Return that a request is allowed, if it is."""
        decision = admission.evaluate(request, self._settings, self._listers)
        return decision if isinstance(decision, Allowed) else None

    async def judge(
        self,
        request: admission.Request,
        deadline: float,  # noqa: ARG002 (nothing is waited for)
        skipped: Set[str] = frozenset(),
        peer: str = "",  # noqa: ARG002 (nothing is looked up elsewhere)
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        """Return the decision; a question for the cluster's authorizer is answered no."""
        decision = await run(
            partial(admission.evaluate, request, self._settings, self._listers, skipped)
        )
        return decision.otherwise if isinstance(decision, Question) else decision

    def checks(self) -> Mapping[str, bool]:
        """Return no check: everything is there from the start."""
        return {}

    def details(self) -> Mapping[str, str]:
        """Return nothing: there is no check."""
        return {}

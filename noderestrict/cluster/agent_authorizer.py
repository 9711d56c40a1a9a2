"""Answer SubjectAccessReviews of agents, and pass on those of nodes.

Before a read is denied, every lookup behind that is repeated at the API server.
"""

from noderestrict import authorization
from noderestrict.agents.reads import Asked, Reach
from noderestrict.api.resources import ObjectKey
from noderestrict.cluster.connection import ClusterError
from noderestrict.cluster.judge import ClusterJudge, ClusterListers, agent_share
from noderestrict.cluster.live import BudgetExhaustedError
from noderestrict.cluster.node_authorizer import NodeAuthorizer
from noderestrict.graph.rules import Opinion
from noderestrict.policy.records import Record

#: The pod of the token, and the pod that is asked for.
_ROUNDS = 3


class AgentAuthorizer:
    """Answers for agents and nodes.

    Args:
        judge: has the stores, and looks up live.
        nodes: knows what the pods of a node refer to.
    """

    def __init__(self, judge: ClusterJudge, nodes: NodeAuthorizer) -> None:
        self._judge = judge
        self._nodes = nodes

    async def authorize(
        self, review: authorization.Review, deadline: float, peer: str = ""
    ) -> Opinion | None:
        """Return the opinion; None if a live lookup was needed and failed."""
        asked = review.asked
        if asked is None:
            return await self._nodes.authorize(review, deadline, peer)
        try:
            found = await self._confirmed(asked, deadline, peer)
        except (ClusterError, BudgetExhaustedError):
            return None
        if not isinstance(found, Reach):
            return found
        question = authorization.reach_review(asked, found)
        opinion = await self._nodes.authorize(question, deadline, peer)
        return None if opinion is None else authorization.reached(opinion, found)

    async def _confirmed(self, asked: Asked, deadline: float, peer: str) -> Opinion | Reach | None:
        """Return the opinion, which is denied only by live answers; None if they keep changing."""
        live: dict[ObjectKey, Record | None] = {}
        share = agent_share(asked.agent, asked.user, peer)
        for _ in range(_ROUNDS):
            listers = ClusterListers(self._judge.informers, live)
            found = authorization.evaluate_agent(asked, listers)
            denied = isinstance(found, Opinion) and found.denied
            unconfirmed = listers.used - live.keys() if denied else listers.unknown
            if not unconfirmed:
                return found
            live |= await self._judge.look_up(unconfirmed, share, deadline)
        return None

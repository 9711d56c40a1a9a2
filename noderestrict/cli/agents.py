"""``noderestrict agents``: find what runs on every node, and learn what it does."""

from typing import Any

from noderestrict.cli import agents_find, agents_learn


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "agents",
        help="find the agents that could harm other nodes, and learn what they do",
        description="Agents are the pods of DaemonSets: they run on every node as one service "
        "account, whose rights no role can hold to a node.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    agents_find.add_parser(actions)
    agents_learn.add_parser(actions)

"""``noderestrict agents learn``: write a policy file from what audit logs show."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli.agents_find import objects_of
from noderestrict.cli.cluster_objects import from_files
from noderestrict.cli.fields import add_flags
from noderestrict.cli.shared_flags import NamespacedAccess, add_output_flag, add_size_flag
from noderestrict.rbac.subjects import ACCOUNT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noderestrict.agents.file import Agent
    from noderestrict.replay.learn.learner import Learner
    from noderestrict.replay.results import NotJudged, Result, Undecided


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "learn",
        help="write a policy file from what agents did, as audit logs show it",
        description="Tell for each resource that an agent wrote or read what it had to do with the "
        "agent's node, and which fields changed, and write a policy file that allows this. What no "
        "relation explains is left out, and listed.",
    )
    parser.add_argument(
        "--audit-log",
        nargs="+",
        action="extend",
        default=[],
        required=True,
        metavar="FILE",
        help="audit logs of API servers: as they write them, or as a cloud or log pipeline exports "
        "them, also .gz or .zst; - for stdin",
    )
    parser.add_argument(
        "--user",
        action="append",
        default=[],
        metavar="[NAMESPACE/]NAME",
        help="service account of an agent; may be repeated; without it and --user-prefix, the "
        "agents are the service accounts of all DaemonSets",
    )
    parser.add_argument(
        "--user-prefix",
        nargs=2,
        action="append",
        default=[],
        metavar=("PREFIX", "GROUP"),
        help="agents whose user names are a prefix and the name of their node, and a group that "
        "they are in, such as system:ovn-node: system:ovn-nodes; may be repeated",
    )
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="FILE",
        help="file or folder with cluster objects: DaemonSets, and the pods that tell where agents "
        "run and what they refer to; may be repeated; without it and users, the DaemonSets of the "
        "live cluster are read",
    )
    parser.add_argument(
        "--unexplained",
        choices=("comment", "any"),
        default="comment",
        help="comment: leave out what no relation explains, with a comment that shows its entry; "
        "any: allow it for all objects",
    )
    add_output_flag(parser, ("yaml", "json"), "yaml")
    add_size_flag(parser)
    add_flags(parser, NamespacedAccess)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the policy file; return 1 if something is not explained, 2 if unreadable, else 0.

    Raises:
        UsageError: there are no agents, or a file cannot be read.
    """
    from noderestrict.cli.shared_flags import Policy
    from noderestrict.graph.graph import Graph
    from noderestrict.replay.audit.log import AuditLog
    from noderestrict.replay.audit.read import Seen, events
    from noderestrict.replay.learn.learner import Learner
    from noderestrict.replay.learn.policy import text_of
    from noderestrict.replay.state import load_state
    from noderestrict.survey.files import files_of

    agents = _agents(options)
    graph = Graph(most_edges=None)
    listers = from_files(lambda limit: load_state(files_of(options.state), graph, limit), options)
    learner = Learner(agents, graph)
    log = AuditLog(Policy().offline(), listers, agents=learner, judges_nodes=False)
    seen = Seen()
    users = learner.users()
    inputs = (events(file, seen, users=users) for file in options.audit_log)
    unreadable = _told(log.results(*inputs), options.prog)
    keep_any = options.unexplained == "any"
    text = text_of(learner, options.audit_log, keep_any=keep_any)
    print(_as_json(text, learner) if options.output == "json" else text, end="")
    sys.stdout.flush()
    left = _report(learner)
    if not any(one.writes or one.reads for one in learner.learned.values()):
        print(
            f"{options.prog}: of {seen.events} audit events, none is an agent's",
            file=sys.stderr,
        )
        return 2
    return 2 if unreadable else int(left > 0 and not keep_any)


def _told(results: "Any", prog: str) -> bool:
    """Print what cannot be read, and return whether there was anything."""
    from noderestrict.replay.sources import Unreadable

    found: Result | Undecided | NotJudged | Unreadable
    unreadable = False
    for found in results:
        if isinstance(found, Unreadable):
            unreadable = True
            print(f"{prog}: {found}", file=sys.stderr)
    return unreadable


def _as_json(text: str, learner: "Learner") -> str:
    """Return a policy file, and what no relation explains, for programs."""
    import json

    import yaml

    from noderestrict.replay.learn.policy import unexplained

    left = {name: list(unexplained(one)) for name, one in learner.learned.items()}
    value = {"policy": yaml.safe_load(text), "unexplained": left}
    return json.dumps(value, indent=2) + "\n"


def _report(learner: "Learner") -> int:
    """Print what no relation explains, and return how much that is."""
    from noderestrict.policy.text import printable
    from noderestrict.replay.learn.policy import unexplained

    count = 0
    for name, learned in learner.learned.items():
        for line in unexplained(learned):
            count += 1
            print(printable(f"not explained: {name}: {line}"), file=sys.stderr)
    return count


def _agents(options: argparse.Namespace) -> "Sequence[Agent]":
    """Return who the agents are: those that the operator names, or those of DaemonSets."""
    from noderestrict.agents.file import PolicyFile, User
    from noderestrict.agents.load import PolicyFileError, dump, parse
    from noderestrict.replay.learn.learner import agent_for
    from noderestrict.survey.accounts import accounts

    namespace = getattr(options, "namespace", None)
    users = [User(service_account=_account(text, namespace)) for text in options.user]
    users += (User(prefix=prefix, group=group) for prefix, group in options.user_prefix)
    if not users:
        objects = objects_of(options)
        read = objects.by_resource
        users = [
            User(service_account=f"{one.namespace}/{one.name}")
            for one in accounts(read["daemonsets"], read["pods"])
        ]
        if not users:
            missing = "; ".join(
                f"{one.what}: {one.why}"
                for one in objects.not_seen
                if one.what in ("daemonsets", "pods")
            )
            raise UsageError(
                f"there are no DaemonSets, so --user or --user-prefix must name the agents"
                f"{f' ({missing})' if missing else ''}"
            )
    taken: set[str] = set()
    agents = tuple(agent_for(user, taken) for user in dict.fromkeys(users))
    try:
        # The file that is written must be one that can be read.
        return parse(dump(PolicyFile(agents)).encode(), "--user").agents
    except PolicyFileError as error:
        raise UsageError(str(error)) from None


def _account(text: str, namespace: str | None) -> str:
    """Return NAMESPACE/NAME of a service account that is written so, or as its user name.

    Args:
        text: as it is written.
        namespace: of a name without one; None if it must have one.
    """
    if not text.startswith(ACCOUNT_PREFIX):
        return f"{namespace}/{text}" if namespace and "/" not in text else text
    return text.removeprefix(ACCOUNT_PREFIX).replace(":", "/", 1)

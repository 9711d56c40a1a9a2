"""Flags that several subcommands share."""

import argparse
from typing import Any

from noderestrict.policy import features
from noderestrict.policy.extra import FORBIDDEN_LABELS, Extra
from noderestrict.policy.keys import NodeKeys, parse_allowed_labels, parse_node_keys
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import STRICT_RULE_IDS

_ALL = "all"
#: The strict rules that need no more than to be named.
SELECTABLE = tuple(rule for rule in STRICT_RULE_IDS if rule != FORBIDDEN_LABELS)


def _checked(parse: Any) -> Any:
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def host_and_port(text: str) -> tuple[str, int]:
    """Return the address that a flag's text names."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def parse_strict_rules(text: str) -> tuple[str, ...]:
    """Return the rules of ``RULE,RULE``, or all that need no more than to be named.

    Raises:
        ValueError: one is not a strict rule.
    """
    wanted = tuple(filter(None, (part.strip() for part in text.split(","))))
    if wanted == (_ALL,):
        return SELECTABLE
    for rule in wanted:
        if rule not in SELECTABLE:
            raise ValueError(
                f"{rule!r} is not a strict rule; known: {_ALL}, or of {', '.join(SELECTABLE)}"
            )
    return wanted


def add_policy_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the rules' settings."""
    parser.add_argument(
        "--state",
        nargs="+",
        action="append",
        default=[],
        metavar="FILE",
        help="cluster objects, as 'kubectl get nodes,pods,serviceaccounts,pvc,pv,csidrivers "
        "-A -o json' writes them",
    )
    parser.add_argument(
        "--feature-gates",
        type=_checked(features.parse_gates),
        default={},
        metavar="A=true,B=false",
        help="feature gates, over the defaults of the Kubernetes version",
    )
    parser.add_argument(
        "--kubernetes-version",
        type=_checked(features.parse_version),
        metavar="1.NN",
        help="whose gate defaults to use (default: the cluster's, offline "
        f"1.{features.LATEST_MINOR})",
    )
    add_audiences_flag(
        parser,
        "(its default is the service account issuer); without it, a cluster's are learned, if our "
        "token can tell them: one from a Secret, or the default one of a pod",
    )
    add_extra_flags(parser)


def add_audiences_flag(parser: argparse.ArgumentParser, more: str) -> None:
    """Add the flag for the API server's audiences, with more to say on it in its help."""
    parser.add_argument(
        "--api-audiences",
        type=lambda text: tuple(filter(None, text.split(","))) or None,
        metavar="A,B",
        help=f"the API server's --api-audiences {more}",
    )


def add_size_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that bounds what is read into memory."""
    parser.add_argument(
        "--max-file-mib",
        type=_positive,
        default=512,
        metavar="MIB",
        help="size of a file, unpacked, that is read as a whole; .jsonl files and audit logs are "
        "read line by line (default: %(default)s)",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def add_extra_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for policy beyond the in-tree plugin."""
    parser.add_argument(
        "--strict-rules",
        type=_checked(parse_strict_rules),
        default=(),
        metavar="A,B",
        help=f"rules beyond the in-tree plugin that are on, or all: {', '.join(SELECTABLE)}",
    )
    keys = "NODES=KEY|KEY,…"
    parser.add_argument(
        "--allow-node-labels",
        type=_checked(parse_allowed_labels),
        default=NodeKeys(),
        metavar=keys,
        help="labels that nodes may set besides those that Kubernetes lets them, by node name, "
        "where * stands for anything; a key that ends with * is a prefix",
    )
    parser.add_argument(
        "--forbid-node-labels",
        type=_checked(parse_node_keys),
        default=NodeKeys(),
        metavar=keys,
        help=f"labels that nodes may not set, whatever else lets them ({FORBIDDEN_LABELS})",
    )
    parser.add_argument(
        "--allow-node-annotations",
        type=_checked(parse_node_keys),
        default=NodeKeys(),
        metavar=keys,
        help="annotations that strict rule nodes/annotations lets nodes set besides the kubelet's",
    )


def extra_policy(options: argparse.Namespace) -> Extra:
    """Return the policy beyond the in-tree plugin that the flags ask for."""
    return Extra.of(
        options.strict_rules,
        options.allow_node_labels,
        options.forbid_node_labels,
        options.allow_node_annotations,
    )


def policy_settings(options: argparse.Namespace) -> Settings:
    """Return the settings that the flags ask for, without a cluster."""
    minor = options.kubernetes_version
    return Settings.for_version(
        features.LATEST_MINOR if minor is None else minor,
        options.feature_gates,
        options.api_audiences,
        extra=extra_policy(options),
    )

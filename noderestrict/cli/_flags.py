"""Flags that several subcommands share."""

import argparse
from typing import Any

from noderestrict.policy import features
from noderestrict.policy.settings import Settings


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
    parser.add_argument(
        "--api-audiences",
        type=lambda text: tuple(filter(None, text.split(","))) or None,
        metavar="A,B",
        help="the API server's --api-audiences (its default is the service account issuer)",
    )


def policy_settings(options: argparse.Namespace) -> Settings:
    """Return the settings that the flags ask for, without a cluster."""
    minor = options.kubernetes_version
    return Settings.for_version(
        features.LATEST_MINOR if minor is None else minor,
        options.feature_gates,
        options.api_audiences,
    )

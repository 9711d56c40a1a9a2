"""Read kubeadm's configuration, for what installs something beside an API server."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from noderestrict.cli._files import read_documents
from noderestrict.cli.argument_types import checked, parse_host_and_port

if TYPE_CHECKING:
    from noderestrict.render.kubeadm import Kubeadm


def add_api_server(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where the API server beside kubeadm is."""
    parser.add_argument(
        "--api-server",
        type=checked(parse_host_and_port),
        metavar="HOST:PORT",
        help="address of the API server on this machine, which its certificate covers; without it, "
        "kubeadm takes the machine's default one",
    )


def read_kubeadm(file: Path | None, endpoint: "tuple[str, int] | None") -> "Kubeadm":
    """Return kubeadm's configuration; that of no cluster if there is no file.

    Raises:
        UsageError: the file holds none.
    """
    from noderestrict.render.kubeadm import BARE, Kubeadm, find_cluster_configuration

    if file is None:
        return Kubeadm(BARE.cluster, endpoint)
    cluster = read_documents("--kubeadm-config", file, find_cluster_configuration)
    return Kubeadm(cluster, endpoint)

"""``noderestrict certs``: certificates for clusters without cert-manager."""

import argparse
import asyncio
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._parser import described
from noderestrict.cli.argument_types import (
    CERTIFICATE_NAMES,
    DAYS,
    NAMESPACE,
    NAMESPACED_NAME,
    OBJECT_NAME,
    PATH,
    SECONDS,
    checked,
    parse_host_and_port,
)
from noderestrict.cli.cluster_objects import from_cluster
from noderestrict.cli.fields import add_flags, from_flags
from noderestrict.cli.shared_flags import KubectlAccess, add_output_flag
from noderestrict.render import names

if TYPE_CHECKING:
    from noderestrict.certs.journal import Journal
    from noderestrict.cluster.connection import Connection

_ACTIONS = {
    "bootstrap": "create what is missing or bad; change nothing if all is well",
    "renew": "replace only the certificate, signed by the kept CA, if it is bad or expires soon",
    "rotate": "create a new CA and certificate",
    "check": "exit with code 1 if something is wrong or expires soon",
    "answer": "exit with code 1 unless API servers get answers from an installation by Helm",
}

_LIFETIME, _CA_LIFETIME = dt.timedelta(days=365), dt.timedelta(days=3650)


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "certs",
        help="create, rotate and check the served certificate without cert-manager",
        description="Create a CA and a server certificate, write them as Secrets or as files, and "
        "put the CA into the webhook configuration. With --ca-secret or --ca-directory the CA is "
        "kept, and renewing replaces only the certificate. Otherwise its key is thrown away: each "
        "certificate has a new CA, and the old CA stays in the bundle until the new certificate "
        "is served.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, **described(text))
        if name == "answer":
            _add_answer_flags(action)
            continue
        _add_places(action, kept=name == "renew")
        if name != "renew":
            action.add_argument(
                "--webhook-configuration",
                type=checked(OBJECT_NAME.parse),
                action="append",
                default=[],
                metavar="NAME",
                help="webhook configuration whose CA bundles are kept up to date; may be repeated",
            )
        action.add_argument(
            "--dns-names",
            type=checked(CERTIFICATE_NAMES.parse),
            default=(),
            metavar="A,B",
            help="names and IP addresses of the certificate (default: those by which the "
            "registration calls the server, and those that the certificate has already; if there "
            f"are none, or only some of them, {', '.join(names.CERTIFICATE_NAMES)})",
        )
        action.add_argument(
            "--renew-before",
            type=checked(DAYS.parse),
            default=dt.timedelta(days=30),
            metavar="DAYS",
            help="remaining days under which a certificate counts as expiring soon",
        )
        if name != "check":
            action.add_argument(
                "--lifetime",
                type=checked(DAYS.parse),
                default=_LIFETIME,
                metavar="DAYS",
                help="lifetime of the certificate",
            )
        if name in ("bootstrap", "rotate"):
            _add_ca_flags(action)
        if name == "renew":
            action.add_argument(
                "--force",
                action="store_true",
                help="replace the certificate even if nothing is wrong with it",
            )
        if name == "bootstrap":
            action.add_argument(
                "--registration",
                type=checked(PATH.parse),
                metavar="FILE",
                help="YAML file with webhook configurations to write with the CA, in place of the "
                "installed ones, whatever was changed there, once the API server gets answers from "
                "there; - is standard input",
            )
            action.add_argument(
                "--planned",
                type=checked(PATH.parse),
                metavar="FILE",
                help="YAML file with webhook configurations that somebody else writes without a "
                "CA, such as Helm: the installed ones get the CA, and the webhooks that they lack; "
                "an error if nodes would be denied when what is planned is applied",
            )
            action.add_argument(
                "--unserved",
                action="store_true",
                help="write it whether or not the API server gets answers; unless its "
                "failurePolicy is Ignore, nodes are denied until it does",
            )
        add_output_flag(action, ("text", "json"), "text")
        add_flags(action, KubectlAccess)
    # An action leaves alone what it has no flag for.
    parser.set_defaults(
        run=run,
        registration=None,
        planned=None,
        unserved=False,
        webhook_configuration=[],
        served_at=[],
        wait=0.0,
        lifetime=_LIFETIME,
        ca_lifetime=_CA_LIFETIME,
    )


def _add_answer_flags(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--namespace",
        type=checked(NAMESPACE.parse),
        default=names.NAMESPACE,
        metavar="NAME",
        help="namespace of the server",
    )
    _add_wait(action)
    add_output_flag(action, ("text", "json"), "text")
    add_flags(action, KubectlAccess)
    action.set_defaults(run=run_answer)


def _add_wait(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--wait",
        type=checked(SECONDS.parse),
        default=180.0,
        metavar="SECONDS",
        help="how long to wait for an answer",
    )


def _add_places(action: argparse.ArgumentParser, *, kept: bool) -> None:
    where = action.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--secret",
        type=checked(NAMESPACED_NAME.parse),
        metavar="NAMESPACE/NAME",
        help="Secret of the certificate, of type kubernetes.io/tls",
    )
    where.add_argument(
        "--directory",
        type=checked(PATH.parse),
        metavar="DIR",
        help="directory of the certificate files",
    )
    ca = action.add_mutually_exclusive_group(required=kept)
    ca.add_argument(
        "--ca-secret",
        type=checked(NAMESPACED_NAME.parse),
        metavar="NAMESPACE/NAME",
        help="Secret in which the CA is kept",
    )
    ca.add_argument(
        "--ca-directory",
        type=checked(PATH.parse),
        metavar="DIR",
        help="directory in which the CA is kept",
    )


def _add_ca_flags(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--ca-lifetime",
        type=checked(DAYS.parse),
        default=_CA_LIFETIME,
        metavar="DAYS",
        help="lifetime of a kept CA",
    )
    action.add_argument(
        "--served-at",
        action="append",
        default=[],
        type=checked(parse_host_and_port),
        metavar="HOST:PORT",
        help="address of a server; may be repeated. The replaced CA is dropped once the new "
        "certificate is served there. For the name of a Service, such as NAME.NAMESPACE.svc, every "
        "endpoint is asked",
    )
    _add_wait(action)


def run(options: argparse.Namespace) -> int:
    """Run the action; return 1 if ``check`` finds a problem, else 0.

    Raises:
        UsageError: files or the cluster cannot be read or written.
    """
    from noderestrict.certs.errors import CertsError
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.pki.check import KeyPairError

    try:
        return asyncio.run(_run(options))
    except (CertsError, ClusterError, KeyPairError) as error:
        raise UsageError(str(error)) from None


async def _run(options: argparse.Namespace) -> int:
    if options.planned is not None and (options.secret is None or options.registration):
        raise UsageError("--planned needs --secret, and no --registration")
    in_cluster = (
        options.secret or options.ca_secret or options.webhook_configuration or options.registration
    )
    if not in_cluster:
        return await _act(options, None)
    access = from_flags(KubectlAccess, options)
    async with access.connected() as connection:
        return await _act(options, connection)


async def _act(options: argparse.Namespace, connection: "Connection | None") -> int:
    from noderestrict.cli.certs_actions import Actions

    journal = _journal(options)
    code: int = await getattr(Actions(options, connection, journal), options.action)()
    return _ended(options, journal, code)


def run_answer(options: argparse.Namespace) -> int:
    """Return 0 if the API server gets an answer, else print why not and return 1.

    Raises:
        UsageError: the cluster cannot be asked.
    """
    from noderestrict.certs.planned import why_not_answered

    problem = from_cluster(
        lambda connection: why_not_answered(connection, options.namespace, options.wait), options
    )
    journal = _journal(options)
    if problem:
        journal.problem(problem)
    else:
        journal.did("the API server gets answers")
    return _ended(options, journal, int(bool(problem)))


def _journal(options: argparse.Namespace) -> "Journal":
    from noderestrict.certs.journal import Journal

    as_json = options.output == "json"
    return Journal(lambda text: None if as_json else print(text, flush=True))


def _ended(options: argparse.Namespace, journal: "Journal", code: int) -> int:
    """Return the exit code, which programs are told with everything else."""
    if options.output == "json":
        print(json.dumps(journal.value(options.action, code), indent=2))
    return code

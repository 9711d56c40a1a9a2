"""``noderestrict certs``: certificates for clusters without cert-manager."""

import argparse
import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._flags import host_and_port

if TYPE_CHECKING:
    from noderestrict.cluster.connection import Connection
    from noderestrict.cluster.publish import Secret

_CERTIFICATE, _KEY, _CA = "tls.crt", "tls.key", "ca.crt"
_DEFAULT_NAMES = (
    "noderestrict.noderestrict.svc",
    "noderestrict.noderestrict.svc.cluster.local",
)


def _days(text: str) -> dt.timedelta:
    if not text.isdigit() or not 0 < int(text) < 36500:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days")
    return dt.timedelta(days=int(text))


def _secret(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not namespace or not name or "/" in name or not slash:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME")
    return namespace, name


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "certs",
        help="make, rotate and check the served certificate without cert-manager",
        description="Make a CA and a server certificate, write them as a Secret or as files, and "
        "put the CA into the webhook configuration. The CA's key is never kept: each rotation "
        "makes a new CA, and the old one stays in the bundle until the new certificate is served.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("bootstrap", "make what is missing or bad; nothing if all is well"),
        ("rotate", "make a new CA and certificate"),
        ("check", "exit code 1 if something is wrong or expires soon"),
    ):
        action = actions.add_parser(name, help=text)
        where = action.add_mutually_exclusive_group(required=True)
        where.add_argument("--secret", type=_secret, metavar="NAMESPACE/NAME")
        where.add_argument("--directory", type=Path, metavar="DIR")
        action.add_argument(
            "--webhook-configuration",
            action="append",
            default=[],
            metavar="NAME",
            help="whose CA bundles are kept; may be given again",
        )
        action.add_argument(
            "--dns-names",
            type=lambda names: tuple(filter(None, names.split(","))),
            default=_DEFAULT_NAMES,
            metavar="A,B",
            help=f"names and IP addresses that it is for (default: {','.join(_DEFAULT_NAMES)})",
        )
        action.add_argument(
            "--renew-before",
            type=_days,
            default=dt.timedelta(days=30),
            metavar="DAYS",
            help="what expires sooner is bad (default: 30)",
        )
        if name != "check":
            action.add_argument(
                "--lifetime", type=_days, default=dt.timedelta(days=365), metavar="DAYS"
            )
            action.add_argument(
                "--served-at",
                type=host_and_port,
                metavar="HOST:PORT",
                help="the old CA is dropped when the new certificate is served here",
            )
            action.add_argument(
                "--wait",
                type=float,
                default=180.0,
                metavar="SECONDS",
                help="how long to look there (default: 180)",
            )
        action.add_argument(
            "--kubeconfig", metavar="FILE", help="default: the service account of the pod"
        )
        action.add_argument("--context", metavar="NAME", help="of the kubeconfig")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns 1 if ``check`` finds a problem, else 0.

    Raises:
        UsageError: files or the cluster cannot be read or written.
    """
    from noderestrict.cluster.connection import ClusterError
    from noderestrict.pki.check import KeyPairError

    try:
        return asyncio.run(_run(options))
    except (ClusterError, KeyPairError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None


async def _run(options: argparse.Namespace) -> int:
    from noderestrict.cluster.judge import connected

    if options.directory is not None and not options.webhook_configuration:
        return await _act(options, None)
    async with connected(options.kubeconfig, options.context) as connection:
        return await _act(options, connection)


async def _act(options: argparse.Namespace, connection: "Connection | None") -> int:
    now = dt.datetime.now(dt.UTC)
    held = await _held(options, connection)
    problems = await _problems(options, connection, held, now)
    if options.action == "check":
        for problem in problems:
            print(problem)
        print(f"{len(problems)} problems" if problems else "all is well")
        return 1 if problems else 0
    if options.action == "bootstrap" and not problems:
        print("all is well: nothing to do")
        return 0
    for problem in problems:
        print(f"renewing: {problem}")
    await _renew(options, connection, now)
    return 0


async def _held(options: argparse.Namespace, connection: "Connection | None") -> "Secret":
    from noderestrict.cluster.publish import read_secret

    if options.directory is not None:
        names = (_CERTIFICATE, _KEY, _CA)
        files = {name: options.directory / name for name in names}
        return {name: file.read_bytes() for name, file in files.items() if file.exists()}
    assert connection is not None  # noqa: S101 (a Secret needs a cluster)
    return await read_secret(connection, *options.secret) or {}


async def _problems(
    options: argparse.Namespace,
    connection: "Connection | None",
    held: "Secret",
    now: dt.datetime,
) -> list[str]:
    from noderestrict.cluster.publish import read_bundles
    from noderestrict.pki.bundle import issuer_of
    from noderestrict.pki.check import KeyPairError, check_pair

    if _CERTIFICATE not in held or _KEY not in held:
        return ["there is no certificate"]
    try:
        pair = check_pair(held[_CERTIFICATE], held[_KEY], now=now, dns_names=options.dns_names)
    except KeyPairError as error:
        return [str(error)]
    problems = []
    if pair.not_after - now < options.renew_before:
        problems.append(f"the certificate expires at {pair.not_after.isoformat()}")
    for configuration in options.webhook_configuration:
        assert connection is not None  # noqa: S101 (a configuration needs a cluster)
        for webhook, bundle in (await read_bundles(connection, configuration)).items():
            if issuer_of(held[_CERTIFICATE], bundle) is None:
                problems.append(
                    f"{configuration}: the caBundle of webhook {webhook} does not verify it"
                )
    return problems


async def _renew(
    options: argparse.Namespace,
    connection: "Connection | None",
    now: dt.datetime,
) -> None:
    from noderestrict.cluster.publish import change_bundles, write_secret
    from noderestrict.pki.bundle import joined
    from noderestrict.pki.files import write_atomically
    from noderestrict.pki.issue import create_authority

    # A day longer than the leaf, which must not be cut short by it.
    lifetime = options.lifetime + dt.timedelta(days=1)
    authority = create_authority("noderestrict", lifetime=lifetime, now=now)
    leaf = authority.issue(options.dns_names, lifetime=options.lifetime, now=now)
    data = {_CERTIFICATE: leaf.certificate, _KEY: leaf.key, _CA: authority.certificate}
    for configuration in options.webhook_configuration:
        assert connection is not None  # noqa: S101 (a configuration needs a cluster)
        await change_bundles(
            connection, configuration, lambda bundle: joined(bundle, authority.certificate, now)
        )
        print(f"{configuration}: the new CA is in every caBundle")
    if options.directory is not None:
        write_atomically(options.directory / _CA, data[_CA], mode=0o644)
        write_atomically(options.directory / _CERTIFICATE, data[_CERTIFICATE], mode=0o644)
        write_atomically(options.directory / _KEY, data[_KEY])
        print(f"{options.directory}: written")
    else:
        assert connection is not None  # noqa: S101 (a Secret needs a cluster)
        namespace, name = options.secret
        await write_secret(connection, namespace, name, data)
        print(f"Secret {'/'.join(options.secret)}: written")
    if options.served_at is None or connection is None:
        return
    if not await _is_served(options, authority.certificate):
        print("not served yet: the old CA stays in the caBundle until the next rotation")
        return
    for configuration in options.webhook_configuration:
        await change_bundles(connection, configuration, lambda _bundle: authority.certificate)
        print(f"{configuration}: the old CA is dropped")


async def _is_served(options: argparse.Namespace, ca: bytes) -> bool:
    """Tell whether a server at an address is verified by a CA, within the time to wait."""
    loop = asyncio.get_running_loop()
    end = loop.time() + options.wait
    host, port = options.served_at
    context = ssl.create_default_context(cadata=ca.decode())
    while True:
        try:
            _, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=options.dns_names[0]
            )
        except OSError:
            if loop.time() >= end:
                return False
            await asyncio.sleep(1)
        else:
            writer.close()
            return True

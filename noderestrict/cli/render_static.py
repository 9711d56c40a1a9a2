"""``noderestrict render policies --static``: write the files that an API server loads."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from noderestrict.cli._errors import UsageError
from noderestrict.cli._files import read_ca, read_documents
from noderestrict.cli._kubeadm import add_api_server, read_kubeadm
from noderestrict.cli.argument_types import ACCOUNTS, KUBERNETES_VERSION, NAMES, PATH, TEXT
from noderestrict.cli.fields import Group, add_flags, from_flags, setting, switch
from noderestrict.render.protection import ADMINISTRATORS, CA_WRITERS

if TYPE_CHECKING:
    from noderestrict.agents.file import Agent
    from noderestrict.policy.extra import Extra
    from noderestrict.render.load import Object
    from noderestrict.render.registration import Registration

_STATIC = Group("files of the API server", "Only with --static.")


@dataclass(frozen=True, kw_only=True)
class StaticConfig:
    """What the files of the API server depend on."""

    static: bool = switch(
        "write policies that the API server loads from files, with a policy that protects what is "
        "ours in the API, the AdmissionConfiguration and kubeadm's configuration; from Kubernetes "
        "1.36 on",
        _STATIC,
    )
    admin_groups: tuple[str, ...] = setting(
        ADMINISTRATORS,
        NAMES,
        "groups that may change registration, policies and rights of noderestrict in the API",
        _STATIC,
    )
    admin_users: tuple[str, ...] = setting((), NAMES, "users that may change them", _STATIC)
    deployers: tuple[str, ...] = setting(
        (),
        ACCOUNTS,
        "service accounts, NAMESPACE/NAME, that may change them, such as that of a GitOps tool",
        _STATIC,
    )
    ca_writers: tuple[str, ...] = setting(
        CA_WRITERS,
        ACCOUNTS,
        "service accounts, NAMESPACE/NAME, that may change the CA of the registration alone",
        _STATIC,
    )
    ca_bundle: Path | None = setting(
        None,
        PATH,
        "CA, in PEM, of the webhook; writes its registration, too, for the API server to load",
        _STATIC,
    )
    webhook_url: str | None = setting(
        None,
        TEXT,
        "where the API server finds the webhook; without it, beside itself, as the overlay "
        "control-plane has it",
        _STATIC,
    )
    kubeadm_config: Path | None = setting(
        None,
        PATH,
        "kubeadm's ClusterConfiguration of the cluster, as in ConfigMap kubeadm-config, to add to",
        _STATIC,
    )
    admission_config: Path | None = setting(
        None,
        PATH,
        "the API server's AdmissionConfiguration to add to, if it has one",
        _STATIC,
    )
    kubernetes_version: int | None = setting(
        None,
        KUBERNETES_VERSION,
        "Kubernetes version of the API server; without it, that of the ClusterConfiguration",
        _STATIC,
    )


def add_static_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to the parser of ``render policies``."""
    add_flags(parser, StaticConfig)
    add_api_server(parser)


def static_files(
    options: argparse.Namespace,
    policies: Sequence["Object"],
    extra: "Extra",
    agents: Sequence["Agent"],
) -> dict[str, str] | None:
    """Return the content of every file; None without ``--static``.

    Args:
        options: of the command line.
        policies: those of the API and their bindings.
        extra: policy beyond the in-tree plugin, for the registration.
        agents: that are held to their node, likewise.

    Raises:
        UsageError: a flag or a file is unusable.
    """
    from noderestrict.render.protection import Accounts
    from noderestrict.render.static import Options, files

    config = from_flags(StaticConfig, options)
    if not config.static:
        _check_unused(config, options)
        return None
    kubeadm = read_kubeadm(config.kubeadm_config, options.api_server)
    bundle = read_ca(config.ca_bundle)
    if config.webhook_url is not None and bundle is None:
        raise UsageError("--webhook-url: --ca-bundle is missing, without which it is not asked")
    try:
        return files(
            Options(
                kubeadm,
                kubeadm.minor() if config.kubernetes_version is None else config.kubernetes_version,
                policies,
                Accounts(
                    config.admin_groups, config.admin_users, config.deployers, config.ca_writers
                ),
                None if bundle is None else _registration(config.webhook_url),
                bundle or b"",
                extra,
                _admission(config.admission_config),
                agents,
            )
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _check_unused(config: StaticConfig, options: argparse.Namespace) -> None:
    unset = StaticConfig()
    for one in fields(StaticConfig):
        if getattr(config, one.name) != getattr(unset, one.name):
            raise UsageError(f"--{one.name.replace('_', '-')} needs --static")
    if options.api_server is not None:
        raise UsageError("--api-server needs --static")


def _registration(url: str | None) -> "Registration":
    from noderestrict.render.manifests import HOSTS
    from noderestrict.render.registration import Registration

    if url is None:
        return HOSTS
    if not url.startswith("https://") or not url.isprintable() or "#" in url or "?" in url:
        raise UsageError(f"--webhook-url {url}: not an HTTPS URL without query and fragment")
    return Registration({"url": url})


def _admission(file: Path | None) -> "Object | None":
    from noderestrict.render.admission_configuration import find_admission_configuration

    if file is None:
        return None
    return read_documents("--admission-config", file, find_admission_configuration)

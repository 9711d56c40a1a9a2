"""Settings and flags that several commands share."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noderestrict.cli.argument_types import (
    ADDRESSES,
    ALLOWED_LABELS,
    AUDIENCES,
    COUNT,
    FEATURE_GATES,
    FILE_NAME,
    FILES,
    KUBERNETES_VERSION,
    NAME,
    NAMESPACE,
    NODE_KEYS,
    REPEATED,
    SELECTABLE,
    STRICT_RULES,
    checked,
)
from noderestrict.cli.fields import Group, setting
from noderestrict.policy import features
from noderestrict.policy.extra import FORBIDDEN_LABELS, Extra
from noderestrict.policy.keys import NodeKeys
from noderestrict.policy.releases import LATEST, Release
from noderestrict.policy.settings import Settings

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from noderestrict.cluster.connection import Connection

CLUSTER = Group("cluster", "Without --state, lookups are answered from a live cluster.")
RULES = Group("rules")


@dataclass(frozen=True, kw_only=True)
class ClusterAccess:
    """How to reach the API server."""

    kubeconfig: str | None = setting(
        None,
        FILE_NAME,
        "kubeconfig of the cluster, or several, separated by colons; without it, $KUBECONFIG, "
        "~/.kube/config or the service account of the pod is used",
        CLUSTER,
    )
    context: str | None = setting(
        None, NAME, "context of the kubeconfig; without it, the current context is used", CLUSTER
    )
    api_server: tuple[tuple[str, int], ...] = setting(
        (),
        ADDRESSES,
        "addresses at which a pod reaches API servers, in the order in which they are tried; "
        "certificates are verified for kubernetes.default.svc; without it, the Service of the "
        "cluster is used",
        CLUSTER,
    )


@dataclass(frozen=True, kw_only=True)
class KubectlAccess(ClusterAccess):
    """How to reach the API server, and as whom, with kubectl's flags."""

    as_: str | None = setting(
        None,
        NAME,
        "user to impersonate, as kubectl does; without it, that of the kubeconfig",
        CLUSTER,
    )
    as_group: tuple[str, ...] = setting(
        (), REPEATED, "group to impersonate besides the user; may be repeated", CLUSTER
    )
    as_uid: str | None = setting(None, NAME, "uid to impersonate besides the user", CLUSTER)

    def connected(self) -> "AbstractAsyncContextManager[Connection]":
        """Return a context with a connection to the API server.

        Raises:
            ClusterError: on entry: the API server cannot be reached so.
        """
        # Imported here: it takes long, and is not needed with files.
        from noderestrict.cluster.access import Impersonated
        from noderestrict.cluster.judge import connected

        impersonated = Impersonated(self.as_, self.as_uid, self.as_group)
        return connected(self.kubeconfig, self.context, self.api_server, impersonated)


@dataclass(frozen=True, kw_only=True)
class NamespacedAccess(KubectlAccess):
    """As above, for a command that names objects of namespaces."""

    namespace: str | None = setting(
        None,
        NAMESPACE,
        "namespace of objects that are named without one; without it, that of the context",
        CLUSTER,
    )


@dataclass(frozen=True, kw_only=True)
class StrictPolicy:
    """Policy beyond the in-tree plugin."""

    strict_rules: tuple[str, ...] = setting(
        (),
        STRICT_RULES,
        f"rules beyond the in-tree plugin to turn on, or all: {', '.join(SELECTABLE)}",
        RULES,
    )
    allow_node_labels: NodeKeys = setting(
        NodeKeys(),
        ALLOWED_LABELS,
        "labels that nodes may set besides those that Kubernetes allows, by node name; in a node "
        "name * matches anything, and a key that ends with * is a prefix",
        RULES,
    )
    forbid_node_labels: NodeKeys = setting(
        NodeKeys(),
        NODE_KEYS,
        f"labels that nodes may not set, even if something else allows them ({FORBIDDEN_LABELS})",
        RULES,
    )
    allow_node_annotations: NodeKeys = setting(
        NodeKeys(),
        NODE_KEYS,
        "annotations that the strict rule nodes/annotations lets nodes set besides the kubelet's",
        RULES,
    )

    def extra(self) -> Extra:
        """Return the policy as the rules take it."""
        return Extra.of(
            self.strict_rules,
            self.allow_node_labels,
            self.forbid_node_labels,
            self.allow_node_annotations,
        )


@dataclass(frozen=True, kw_only=True)
class Policy(StrictPolicy):
    """What the rules depend on, and the objects that stand in for a cluster."""

    state: tuple[str, ...] = setting(
        (),
        FILES,
        "files with cluster objects, as written by 'kubectl get "
        "nodes,pods,serviceaccounts,pvc,pv,csidrivers -A -o json'",
        RULES,
    )
    feature_gates: dict[str, bool] = setting(
        {}, FEATURE_GATES, "feature gates that override those of the Kubernetes version", RULES
    )
    kubernetes_version: int | None = setting(
        None,
        KUBERNETES_VERSION,
        "Kubernetes version whose feature gate defaults apply; without it, the version of the "
        f"cluster, or 1.{features.OFFLINE_MINOR} offline",
        RULES,
    )
    api_audiences: tuple[str, ...] | None = setting(
        None,
        AUDIENCES,
        "the API server's --api-audiences (there, the default is the service account issuer); "
        "without it, they are learned from the server's own token if that token shows them: one "
        "from a Secret, or the default one of a pod",
        RULES,
    )

    def offline(self, rules: Release | None = None) -> Settings:
        """Return the settings of the rules without a cluster.

        Args:
            rules: release whose rules and gates apply; None for the latest rules.
        """
        return self._settings(features.OFFLINE_MINOR if rules is None else rules.minor, rules)

    def in_cluster(self, minor: int, rules: Release | None = None) -> Settings:
        """Return the settings of the rules in a cluster, whose audiences may be still unknown.

        Args:
            minor: Kubernetes version of the API server, 1.``minor``.
            rules: release whose rules apply; None for the latest.
        """
        return self._settings(minor, rules, audiences_pending=self.api_audiences is None)

    def _settings(
        self, minor: int, rules: Release | None, *, audiences_pending: bool = False
    ) -> Settings:
        return Settings.for_version(
            minor if self.kubernetes_version is None else self.kubernetes_version,
            self.feature_gates,
            self.api_audiences,
            audiences_pending=audiences_pending,
            extra=self.extra(),
            release=rules or LATEST,
        )


def add_output_flag(
    parser: argparse.ArgumentParser,
    formats: Sequence[str] = ("table", "json"),
    default: str = "table",
) -> None:
    """Add the flag that chooses the format of the result."""
    parser.add_argument(
        "-o", "--output", choices=sorted(formats), default=default, help="format of the result"
    )


def add_size_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that bounds what is read into memory."""
    parser.add_argument(
        "--max-file-mib",
        type=checked(COUNT.parse),
        default=512,
        metavar="MIB",
        help="largest size, unpacked, of a file that is read as a whole; .jsonl files and audit "
        "logs are read line by line",
    )

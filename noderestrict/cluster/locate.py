"""Find the API server to connect to, where client-go looks for it.

The source is k8s.io/client-go: tools/clientcmd/loader.go and merged_client_builder.go,
rest/config.go.
"""

import os
from dataclasses import replace
from pathlib import Path

from noderestrict.cluster.access import Access, Cluster, Content, Impersonated, User
from noderestrict.cluster.api_servers import NAME
from noderestrict.cluster.errors import ConnectionFailedError
from noderestrict.cluster.kubeconfig import File, read_kubeconfigs
from noderestrict.cluster.kubernetes_client import incluster_config

VARIABLE = "KUBECONFIG"
_HOME_FILE = "~/.kube/config"


def find_access(
    kubeconfig: str | None,
    context: str | None,
    *,
    pod: bool = False,
    impersonated: Impersonated | None = None,
) -> Access:
    """Return how to reach the API server, and as whom.

    Args:
        kubeconfig: one or more files, separated as in $KUBECONFIG. None means those of $KUBECONFIG,
            else ~/.kube/config, and the service account of the pod where neither has content.
        context: of the kubeconfig; None means its current one.
        pod: use the service account of the pod, at addresses that are given.
        impersonated: whom to impersonate instead of whom the kubeconfig says.

    Raises:
        ConnectionFailedError: nothing says it, or what does is unusable.
    """
    found = _find(kubeconfig, context, pod=pod)
    if impersonated is None:
        return found
    return replace(found, user=impersonated.applied(found.user))


def _find(kubeconfig: str | None, context: str | None, *, pod: bool) -> Access:
    if pod:
        if kubeconfig is not None:
            raise ConnectionFailedError(
                "--api-server is for the service account of a pod: a --kubeconfig names its own"
            )
        own = _in_cluster()
        return replace(own, cluster=replace(own.cluster, server=f"https://{NAME}"))
    files = _given(kubeconfig) if kubeconfig is not None else _found()
    access = read_kubeconfigs(files, context) if files else None
    if access is not None:
        return access
    if kubeconfig is not None:
        raise ConnectionFailedError(f"--kubeconfig {kubeconfig}: the file is empty")
    if context is not None:
        raise ConnectionFailedError(
            f"--context {context}: there is no kubeconfig: set --kubeconfig"
        )
    return _in_cluster()


def _given(kubeconfig: str) -> list[File]:
    """Return the files of the flag; those of a list that are missing are left out."""
    names = [kubeconfig]
    if _is_missing(Path(kubeconfig)) and os.pathsep in kubeconfig:
        names = [name for name in kubeconfig.split(os.pathsep) if name]
    files = [File(path, f"--kubeconfig {path}") for path in map(_expanded, names)]
    return [file for file in files if not _is_missing(file.path)] or files


def _found() -> list[File]:
    """Return the files that the environment names, or the one in the home directory."""
    if names := os.environ.get(VARIABLE):
        files = [File(Path(one), f"${VARIABLE}: {one}") for one in names.split(os.pathsep) if one]
    else:
        path = _expanded(_HOME_FILE)
        # A pod may not even look into the home directory of its image.
        files = [File(path, str(path))] if os.access(path, os.R_OK) else []
    return [file for file in files if not _is_missing(file.path)]


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        # Reading it will say why.
        return False
    return False


def _expanded(name: str) -> Path:
    # Without a home directory the name stays as it is.
    return Path(os.path.expanduser(name))  # noqa: PTH111 (Path.expanduser raises then)


def _in_cluster() -> Access:
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    if not host or not port:
        named = os.environ.get(VARIABLE)
        tried = f"${VARIABLE} ({named})" if named else _HOME_FILE
        raise ConnectionFailedError(
            f"no cluster is configured: this is no pod, and {tried} is missing or empty: set "
            "--kubeconfig"
        )
    token = Path(incluster_config.SERVICE_TOKEN_FILENAME)
    ca = Path(incluster_config.SERVICE_CERT_FILENAME)
    try:
        namespace = token.with_name("namespace").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        namespace = ""
    where = "the service account of this pod"
    return Access(
        Cluster(
            "$KUBERNETES_SERVICE_HOST",
            f"https://{f'[{host}]' if ':' in host else host}:{port}",
            Content(where, path=ca),
        ),
        User(where, token_file=Content(where, path=token)),
        namespace or "default",
    )

"""How to reach an API server, and as whom: what a kubeconfig or a pod's service account says."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from noderestrict.cluster.errors import ConnectionFailedError
from noderestrict.pki.files import read_regular

_LONGEST_FILE = 1024 * 1024
_USER, _UID, _GROUP = "Impersonate-User", "Impersonate-Uid", "Impersonate-Group"
_FLAGS = {_USER: "--as", _UID: "--as-uid", _GROUP: "--as-group"}


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """Bytes that are given, or those of a file, which may change.

    Attributes:
        where: how messages name it.
        data: the bytes; None if they are in the file.
        path: of the file.
    """

    where: str
    data: bytes | None = None
    path: Path | None = None

    def read(self) -> bytes:
        """Return the bytes as they are now.

        Raises:
            ConnectionFailedError: the file cannot be read, or is empty.
        """
        if self.path is None:
            return self.data or b""
        try:
            content = read_regular(self.path, _LONGEST_FILE)
        except OSError as error:
            raise ConnectionFailedError(f"{self}: {error.strerror or error}") from None
        if not content.strip():
            raise ConnectionFailedError(f"{self}: the file is empty")
        return content

    def __str__(self) -> str:
        """Return how messages name it."""
        return self.where if self.path is None else f"{self.where}: {self.path}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server.

    Attributes:
        where: how messages name it.
        server: its URL, without a slash at the end.
        ca: CAs in PEM that its certificate must lead to; None for the system's.
        insecure: accept any certificate.
        tls_server_name: name that its certificate must have; "" for the host of the URL.
        proxy: URL of the proxy to use; "" for that of the environment, if any.
        exec_config: what exec plugins get to know about this cluster.
    """

    where: str
    server: str
    ca: Content | None = None
    insecure: bool = False
    tls_server_name: str = ""
    proxy: str = ""
    exec_config: Any = None


@dataclass(frozen=True, slots=True, repr=False)
class Plugin:
    """An exec credential plugin.

    Attributes:
        where: how messages name it.
        version: of the ExecCredentials that it reads and writes.
        command: with its arguments.
        env: variables besides our own.
        provide_cluster: whether to tell it about the cluster.
        interactive: ``Never``, ``IfAvailable`` or ``Always``.
        install_hint: what to do if the command is missing.
    """

    where: str
    version: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    provide_cluster: bool
    interactive: str
    install_hint: str


@dataclass(frozen=True, slots=True, repr=False)
class Provider:
    """An OpenID Connect provider that exchanges refresh tokens.

    Attributes:
        where: how messages name it.
        config: of the auth provider, as client-go names its keys.
        ca: CAs in PEM that the provider's certificate must lead to; None for the system's.
        file: the kubeconfig to write new tokens to.
        user: name of the user in that file.
    """

    where: str
    config: Mapping[str, str]
    ca: Content | None
    file: Path
    user: str


@dataclass(frozen=True, slots=True, repr=False)
class User:
    """As whom to connect.

    Attributes:
        where: how messages name the user.
        token: a bearer token, used if there is no file.
        token_file: the file of a bearer token.
        basic: user name and password, separated by a colon.
        certificate: PEM chain of the client certificate, leaf first.
        key: PEM.
        plugin: to run, unless anything above is given.
        provider: to ask, unless a token or password is given.
        impersonation: headers that impersonate another user.
    """

    where: str
    token: str = ""
    token_file: Content | None = None
    basic: str = ""
    certificate: Content | None = None
    key: Content | None = None
    plugin: Plugin | None = None
    provider: Provider | None = None
    impersonation: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """An API server, and as whom to connect to it.

    Attributes:
        namespace: of objects that are named without one.
    """

    cluster: Cluster
    user: User = field(repr=False)
    namespace: str = "default"


@dataclass(frozen=True, slots=True)
class Impersonated:
    """Whom to impersonate, whatever the kubeconfig says.

    Attributes:
        user: name; None for that of the kubeconfig.
        uid: None for that of the kubeconfig.
        groups: none for those of the kubeconfig.
    """

    user: str | None = None
    uid: str | None = None
    groups: tuple[str, ...] = ()

    def applied(self, user: User) -> User:
        """Return a user of the kubeconfig that impersonates this one.

        As in client-go, each value replaces that of the kubeconfig, and the others stay. An empty
        value is none there, and an error here.

        Raises:
            ConnectionFailedError: no user is impersonated, or a value cannot be sent.
        """
        given = [] if self.user is None else [(_USER, self.user)]
        given += [] if self.uid is None else [(_UID, self.uid)]
        given += ((_GROUP, group) for group in self.groups)
        names = {name for name, _ in given}
        headers = (*given, *(one for one in user.impersonation if one[0] not in names))
        for name, value in given:
            if not value:
                # Without a name, requests would be made as whoever impersonates.
                raise ConnectionFailedError(f"{_FLAGS[name]} is empty")
            if not value.isprintable() or value != value.strip():
                raise ConnectionFailedError(f"{_FLAGS[name]}: {value!r} is no value of a header")
        if given and not any(name == _USER for name, _ in headers):
            raise ConnectionFailedError(f"{_FLAGS[given[0][0]]} needs --as")
        return replace(user, impersonation=headers)

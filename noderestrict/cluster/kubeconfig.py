"""Read kubeconfigs as client-go does: several files are merged, paths are relative to their file.

The source is k8s.io/client-go/tools/clientcmd.
"""

import base64
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import yaml

from noderestrict.cluster.access import Access, Cluster, Content, Plugin, Provider, User
from noderestrict.cluster.errors import ConnectionFailedError
from noderestrict.cluster.exec_plugin import VERSIONS
from noderestrict.cluster.oidc import CLIENT, ISSUER
from noderestrict.pki.files import read_regular
from noderestrict.policy.hostile import refused_as
from noderestrict.policy.yaml_nodes import unfolded

#: As for hundreds of clusters; reading it takes about a second.
_LONGEST_FILE = 4 * 1024 * 1024
_MOST_EVENTS = 200_000
_DEEPEST = 100
_SHOWN = 100
#: Extension of a cluster that holds what exec plugins get to know about it.
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"
#: What an HTTP header may be named, but for the percent sign, which escapes.
_NO_HEADER_KEY = re.compile(r"[^!#$&'*+.^_`|~0-9A-Za-z-]")
_SCHEMES = ("http", "https")
_SECRET = re.compile(r"token|password|secret|key-data|\.env|\.args|\.config")

_E = TypeVar("_E", "_NamedCluster", "_NamedContext", "_NamedUser")


class _Extension(msgspec.Struct):
    name: str = ""
    extension: Any = None


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    extensions: list[_Extension] | None = None


class _Variable(msgspec.Struct):
    name: str | None = None
    value: str | None = None


class _Exec(msgspec.Struct, rename="camel"):
    api_version: str | None = None
    command: str | None = None
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class _Provider(msgspec.Struct):
    name: str | None = None
    config: dict[str, str] | None = None


class _User(msgspec.Struct, rename="kebab"):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    as_: str | None = msgspec.field(default=None, name="as")
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str] | None] | None = None
    username: str | None = None
    password: str | None = None
    auth_provider: _Provider | None = None
    exec: _Exec | None = None


class _Context(msgspec.Struct):
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None


class _NamedCluster(msgspec.Struct):
    name: str | None = None
    cluster: _Cluster | None = None


class _NamedContext(msgspec.Struct):
    name: str | None = None
    context: _Context | None = None


class _NamedUser(msgspec.Struct):
    name: str | None = None
    user: _User | None = None


class _Config(msgspec.Struct, rename="kebab"):
    kind: str | None = None
    api_version: str | None = msgspec.field(default=None, name="apiVersion")
    clusters: list[_NamedCluster | None] | None = None
    contexts: list[_NamedContext | None] | None = None
    users: list[_NamedUser | None] | None = None
    current_context: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A kubeconfig.

    Attributes:
        path: of the file.
        origin: how messages name what the path comes from, with the path.
    """

    path: Path
    origin: str


def read_kubeconfigs(files: Sequence[File], context: str | None) -> Access | None:
    """Return the access that one or more kubeconfigs give; the first to set something wins.

    Args:
        files: that exist.
        context: its name; None for the current one.

    Returns:
        None if all of them are empty.

    Raises:
        ConnectionFailedError: one of them, or the context, is unusable.
    """
    read = [(file, _read(file)) for file in files]
    if context is None and not any(
        one.clusters or one.contexts or one.users or one.current_context for _, one in read
    ):
        return None
    return _Merged(read).access(context)


def _read(file: File) -> _Config:
    try:
        text = read_regular(file.path, _LONGEST_FILE)
    except OSError as error:
        raise ConnectionFailedError(f"{file.origin}: {error.strerror or error}") from None
    with refused_as(ConnectionFailedError, file.origin):
        value = _parsed(text, file.origin)
        try:
            config = msgspec.convert({} if value is None else value, _Config)
        except msgspec.ValidationError as error:
            raise ConnectionFailedError(f"{file.origin}: {_explained(error, value)}") from None
    for field, found, right in (
        ("kind", config.kind, "Config"),
        ("apiVersion", config.api_version, "v1"),
    ):
        if found and found != right:
            raise ConnectionFailedError(
                f"{file.origin}: {field}: {_shown(found)} is not that of a kubeconfig, {right}"
            )
    return config


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML as Go does, where dates are text; libyaml's scanner is the one that Go has."""

    yaml_implicit_resolvers: ClassVar = {
        first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _parsed(text: bytes, origin: str) -> Any:
    """Return what YAML or JSON holds.

    Raises:
        ConnectionFailedError: it is neither, or there is too much in it.
    """
    try:
        _check_size(text, origin)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if unfolded(node) > _LONGEST_FILE:
                raise ConnectionFailedError(f"{origin}: its aliases stand for too much")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConnectionFailedError(f"{origin}{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise ConnectionFailedError(f"{origin}: not YAML: {reason[:200]}") from None


def _check_size(text: bytes, origin: str) -> None:
    """Refuse what takes a parser long, or overflows its stack."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise ConnectionFailedError(f"{origin}: nested over {_DEEPEST} levels deep")
        if count > _MOST_EVENTS:
            raise ConnectionFailedError(f"{origin}: it has over {_MOST_EVENTS} values")


def _explained(error: msgspec.ValidationError, value: Any) -> str:
    """Return what msgspec says about a value as field, value and problem."""
    problem, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if not path:
        return f"{problem}: a kubeconfig is a mapping with clusters, contexts and users"
    for part in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return f"{path}: {problem}"
    quoted = "" if _SECRET.search(path) else f"{_shown(value)}: "
    return f"{path}: {quoted}{problem}"


def _shown(value: Any) -> str:
    # The URL of a proxy may hold a password.
    text = re.sub(r"//[^/@]*@", "//…@", repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _Merged:
    """Several kubeconfigs as one."""

    def __init__(self, read: Sequence[tuple[File, _Config]]) -> None:
        self._origin = ", ".join(file.origin for file, _ in read)
        self._current = [
            (file, config.current_context) for file, config in read if config.current_context
        ]
        self._contexts = _by_name("contexts", ((file, one.contexts) for file, one in read))
        self._clusters = _by_name("clusters", ((file, one.clusters) for file, one in read))
        self._users = _by_name("users", ((file, one.users) for file, one in read))

    def access(self, name: str | None) -> Access:
        """Return the access that a context gives; that of the current one if None."""
        where = f"{self._origin}: --context"
        if name is None:
            if not self._current:
                raise ConnectionFailedError(
                    f"{self._origin}: current-context: missing; set it, or --context, to one of "
                    f"{_names(self._contexts)}"
                )
            file, name = self._current[0]
            where = f"{file.origin}: current-context"
        if name not in self._contexts:
            raise ConnectionFailedError(
                f"{where}: there is no context {_shown(name)}; there are: {_names(self._contexts)}"
            )
        file, named = self._contexts[name]
        context = named.context or _Context()
        where = f"{file.origin}: contexts[{name}].context"
        cluster = _find(self._clusters, context.cluster, f"{where}.cluster")
        user = _find(self._users, context.user, f"{where}.user")
        reads = _ClusterReader(*cluster)
        namespace = {"namespace": context.namespace} if context.namespace else {}
        return Access(reads.cluster(), _UserReader(*user).user(), **namespace)


def _by_name(
    field: str, lists: Iterable[tuple[File, Sequence[_E | None] | None]]
) -> dict[str, tuple[File, _E]]:
    """Return the entries of all files by name; those of the first file that has a name."""
    merged: dict[str, tuple[File, _E]] = {}
    for file, entries in lists:
        own: dict[str, tuple[File, _E]] = {}
        for entry in entries or ():
            if entry is None:
                continue
            name = entry.name or ""
            if name in own:
                raise ConnectionFailedError(
                    f"{file.origin}: {field}: there are two with the name {_shown(name)}"
                )
            own[name] = file, entry
        merged = own | merged
    return merged


def _find(entries: Mapping[str, tuple[File, _E]], name: str | None, where: str) -> tuple[File, _E]:
    if not name:
        raise ConnectionFailedError(f"{where}: missing")
    if name not in entries:
        raise ConnectionFailedError(
            f"{where}: there is no {where.rpartition('.')[2]} {_shown(name)}; there are: "
            f"{_names(entries)}"
        )
    return entries[name]


def _names(entries: Iterable[str]) -> str:
    names = sorted(entries)
    text = ", ".join(map(_shown, names[:10])) or "none"
    return f"{text} and {len(names) - 10} more" if len(names) > 10 else text


class _Reader:
    """Reads the fields of one entry of a kubeconfig."""

    def __init__(self, file: File, where: str) -> None:
        self._file = file
        self._where = f"{file.origin}: {where}"

    def _fail(self, field: str, problem: str, value: Any = None) -> ConnectionFailedError:
        shown = "" if value is None else f"{_shown(value)}: "
        return ConnectionFailedError(f"{self._where}.{field}: {shown}{problem}")

    def _content(self, field: str, path: str | None, data: str | None) -> Content | None:
        """Return what a field refers to, or its twin for data holds; None if it is not set."""
        if path and data:
            raise self._fail(field, f"set as well as {field}-data", path)
        if data:
            try:
                decoded = base64.b64decode("".join(data.split()), validate=True)
            except ValueError as error:
                raise self._fail(f"{field}-data", f"not base64: {error}") from None
            return Content(f"{self._where}.{field}-data", decoded)
        return self._file_content(field, path) if path else None

    def _file_content(self, field: str, path: str) -> Content:
        if "\0" in path:
            raise self._fail(field, "no file name", path)
        # Relative to the kubeconfig; an absolute one stays.
        return Content(f"{self._where}.{field}", path=self._folder / path)

    def _check_url(self, field: str, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise self._fail(field, f"invalid URL: {error}", url) from None
        if parts.scheme not in _SCHEMES:
            raise self._fail(field, f"a URL with {' or '.join(_SCHEMES)} is needed", url)
        if not host or not url.isascii() or not url.isprintable() or " " in url:
            raise self._fail(field, "invalid URL", url)
        if field == "server" and parts.username is not None:
            raise self._fail(field, "a URL without user and password is needed")

    @property
    def _folder(self) -> Path:
        return self._file.path.absolute().parent


class _ClusterReader(_Reader):
    def __init__(self, file: File, named: _NamedCluster) -> None:
        super().__init__(file, f"clusters[{named.name}].cluster")
        self._given = named.cluster or _Cluster()

    def cluster(self) -> Cluster:
        given = self._given
        ca = self._content(
            "certificate-authority", given.certificate_authority, given.certificate_authority_data
        )
        insecure = bool(given.insecure_skip_tls_verify)
        if insecure and ca is not None:
            raise self._fail(
                "insecure-skip-tls-verify", "excludes a certificate authority", value=True
            )
        extensions = {one.name: one.extension for one in given.extensions or ()}
        return Cluster(
            self._where,
            self._server(secure=insecure or ca is not None),
            ca,
            insecure,
            self._server_name(),
            self._proxy(),
            extensions.get(_EXEC_EXTENSION),
        )

    def _server(self, *, secure: bool) -> str:
        """Return the URL; a host alone is one as well, as it is for client-go."""
        server = (self._given.server or "").strip()
        if not server:
            raise self._fail("server", "missing")
        if "://" not in server:
            server = f"{'https' if secure else 'http'}://{server}"
        self._check_url("server", server)
        parts = urlsplit(server)
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"

    def _server_name(self) -> str:
        name = self._given.tls_server_name or ""
        if not name.isascii() or not name.isprintable() or " " in name:
            raise self._fail("tls-server-name", "not a host name", name)
        return name

    def _proxy(self) -> str:
        proxy = self._given.proxy_url or ""
        if proxy:
            # client-go knows socks5 as well, aiohttp does not.
            self._check_url("proxy-url", proxy)
        return proxy


class _UserReader(_Reader):
    def __init__(self, file: File, named: _NamedUser) -> None:
        super().__init__(file, f"users[{named.name}].user")
        self._name = named.name or ""
        self._given = named.user or _User()

    def user(self) -> User:
        given = self._given
        certificate = self._content(
            "client-certificate", given.client_certificate, given.client_certificate_data
        )
        key = self._content("client-key", given.client_key, given.client_key_data)
        if certificate is not None and key is None:
            raise self._fail("client-key", "missing, but there is a client certificate")
        basic = ""
        if given.username or given.password:
            if given.token or given.token_file:
                raise self._fail("username", "set as well as a token", given.username or "")
            # A password alone is ignored, as in client-go.
            basic = f"{given.username}:{given.password or ''}" if given.username else ""
        if given.exec is not None and given.auth_provider is not None:
            raise self._fail("exec", "set as well as auth-provider")
        return User(
            self._where,
            given.token or "",
            self._file_content("tokenFile", given.token_file) if given.token_file else None,
            basic,
            certificate,
            # A key alone is ignored, as in client-go.
            key if certificate is not None else None,
            self._plugin(given.exec) if given.exec is not None else None,
            self._provider(given.auth_provider) if given.auth_provider is not None else None,
            tuple(self._impersonation()),
        )

    def _impersonation(self) -> Iterable[tuple[str, str]]:
        """Yield the headers of client-go/transport/round_trippers.go."""
        given = self._given
        user, groups = given.as_ or "", given.as_groups or ()
        if not user:
            for field, value in (
                ("as-uid", given.as_uid),
                ("as-groups", given.as_groups),
                ("as-user-extra", given.as_user_extra),
            ):
                if value:
                    raise self._fail(field, "set without as", value)
            return
        yield "Impersonate-User", self._header("as", user)
        if given.as_uid:
            yield "Impersonate-Uid", self._header("as-uid", given.as_uid)
        for group in groups:
            yield "Impersonate-Group", self._header("as-groups", group)
        for key, values in (given.as_user_extra or {}).items():
            escaped = _NO_HEADER_KEY.sub(lambda found: quote(found[0], safe=""), key)
            for value in values or ():
                yield f"Impersonate-Extra-{escaped}", self._header(f"as-user-extra.{key}", value)

    def _header(self, field: str, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise self._fail(field, "no value of a header", value)
        return value

    def _plugin(self, given: _Exec) -> Plugin:
        if not given.command:
            raise self._fail("exec.command", "missing")
        if given.api_version not in VERSIONS:
            raise self._fail(
                "exec.apiVersion", f"{' or '.join(VERSIONS)} is needed", given.api_version or ""
            )
        # client-go requires it in v1; what it then needs is clear without.
        interactive = given.interactive_mode or "IfAvailable"
        if interactive not in ("Never", "IfAvailable", "Always"):
            raise self._fail(
                "exec.interactiveMode", "Never, IfAvailable or Always is needed", interactive
            )
        env = {}
        for variable in given.env or ():
            if not variable.name or "=" in variable.name or "\0" in variable.name:
                raise self._fail("exec.env", "no name of a variable", variable.name or "")
            env[variable.name] = variable.value or ""
        command = given.command
        if os.sep in command:
            command = str(self._folder / command)
        return Plugin(
            f"{self._where}.exec",
            given.api_version,
            (command, *(given.args or ())),
            env,
            bool(given.provide_cluster_info),
            interactive,
            given.install_hint or "",
        )

    def _provider(self, given: _Provider) -> Provider:
        if given.name != "oidc":
            raise self._fail(
                "auth-provider.name",
                "only oidc is known; use exec for others, as client-go requires",
                given.name or "",
            )
        config = given.config or {}
        for key in (ISSUER, CLIENT):
            if not config.get(key):
                raise self._fail(f"auth-provider.config.{key}", "missing")
        self._check_url(f"auth-provider.config.{ISSUER}", config[ISSUER])
        ca = self._content(
            "auth-provider.config.idp-certificate-authority",
            config.get("idp-certificate-authority"),
            config.get("idp-certificate-authority-data"),
        )
        return Provider(f"{self._where}.auth-provider", config, ca, self._file.path, self._name)

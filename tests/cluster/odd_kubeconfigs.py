"""Odd kubeconfigs of every kind, and what client-go makes of each.

Its answers are recorded in client_go.json; ``python -m tests.cluster.odd_kubeconfigs`` records them
anew, with Go.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.serving.tls import authority, client_leaf

Object = dict[str, Any]
HERE = Path(__file__).parent
RECORDED = HERE / "client_go.json"
V1, V1BETA1 = (f"client.authentication.k8s.io/{one}" for one in ("v1", "v1beta1"))
EXEC = {"apiVersion": V1, "interactiveMode": "Never", "command": "./plugin"}
SECRET = "hush"


@dataclass(frozen=True)
class Odd:
    """Kubeconfigs, and what we say about them.

    Attributes:
        name: of the case.
        files: by name; those named ``config…`` are kubeconfigs, in order.
        told: what our message says where client-go refuses it, too; "" if it is accepted.
        stricter: what our message says where client-go accepts it.
        lenient: why we accept what client-go refuses.
        differs: why we send another request than client-go does.
        context: to choose.
        listed: the value of $KUBECONFIG, if it is not that of all kubeconfigs.
    """

    name: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    told: str = ""
    stricter: str = ""
    lenient: str = ""
    differs: str = ""
    context: str = ""
    listed: str = ""

    def write(self, folder: Path) -> str:
        """Write the files to a folder, and return the value of $KUBECONFIG."""
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            if name.endswith("plugin"):
                file.chmod(0o755)
        names = [name for name in self.files if Path(name).name.startswith("config")]
        listed = self.listed or os.pathsep.join(names)
        return os.pathsep.join(str(folder / one) if one else "" for one in listed.split(os.pathsep))


def config(
    user: Object | None = None, change: Callable[[Object], object] | None = None, **cluster: Any
) -> Object:
    """Return a kubeconfig, with fields of its user and its cluster."""
    cluster = {key.replace("_", "-"): value for key, value in cluster.items()}
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://h:6443", **cluster}}],
        "users": [{"name": "u", "user": {"token": "t"} if user is None else user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    if change is not None:
        change(value)
    return value


def dumped(value: Object) -> bytes:
    return yaml.safe_dump(value).encode()


def one(name: str, value: Object, told: str = "", **more: Any) -> Odd:
    files = {"config": dumped(value), **more.pop("files", {})}
    return Odd(name, files, told, **more)


def text(name: str, content: bytes | str, told: str = "", **more: Any) -> Odd:
    data = content if isinstance(content, bytes) else content.encode()
    return Odd(name, {"config": data}, told, **more)


@dataclass(frozen=True)
class _Keys:
    """A client certificate with its key, and others that do not fit."""

    ca: bytes
    certificate: bytes
    key: bytes
    other: bytes
    encrypted: bytes


@cache
def keys() -> _Keys:
    ca = authority()
    leaf, other = (client_leaf(ca, name) for name in ("one", "other"))
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRET.encode()),
    )
    return _Keys(ca.certificate, leaf.certificate, leaf.key, other.key, encrypted)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def plugin(answer: Object | str = "", *, version: str = V1) -> bytes:
    """Return a plugin that issues a token, or answers what is given."""
    if not answer:
        answer = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": "issued"}}
    said = answer if isinstance(answer, str) else json.dumps(answer)
    return f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n".encode()


def cases() -> Iterator[Odd]:
    """Yield all cases."""
    yield from _of_files()
    yield from _of_yaml()
    yield from _of_names()
    yield from _of_clusters()
    yield from _of_tokens()
    yield from _of_certificates()
    yield from _of_impersonation()
    yield from _of_plugins()
    yield from _of_providers()


def _of_files() -> Iterator[Odd]:
    good = dumped(config())
    yield Odd("no file", {"config": b""}, "no cluster is configured", listed="none")
    yield Odd("a missing file before one that is there", {"config": good}, listed="none:config")
    yield Odd("an empty name in the list", {"config": good}, listed=":config:")
    yield Odd("a folder", {"folder/x": b""}, "not a regular file", listed="folder")
    yield Odd(
        "a folder before a file",
        {"folder/x": b"", "config": good},
        "not a regular file",
        listed="folder:config",
    )
    user = {"token": "first"}
    first, second = config(user), config({"token": "second"}, server="https://second")
    yield Odd("the first file wins", {"config1": dumped(first), "config2": dumped(second)})
    yield Odd(
        "the first to name a context is the current one",
        {
            "config1": dumped(config(change=lambda c: c.pop("current-context"))),
            "config2": dumped(config(change=_other_context)),
        },
    )
    yield Odd(
        "a user of another file",
        {
            "config1": dumped(config(change=lambda c: c.pop("users"))),
            "config2": dumped({"users": [{"name": "u", "user": {"tokenFile": "token"}}]}),
            "token": b"of the file\n",
        },
    )
    yield Odd(
        "paths are relative to their own file",
        {
            "a/config1": dumped(config({"tokenFile": "../b/token"}, lambda c: c.pop("clusters"))),
            "b/config2": dumped({"clusters": config(certificate_authority="ca")["clusters"]}),
            "b/token": b"t",
            "b/ca": keys().ca,
        },
    )
    yield Odd("one of two is broken", {"config1": good, "config2": b"a: ["}, "config2")
    yield Odd("one of two is empty", {"config1": b"", "config2": good})


def _other_context(value: Object) -> None:
    value["contexts"].append({"name": "z", "context": {"cluster": "d", "user": "u"}})
    value["clusters"].append({"name": "d", "cluster": {"server": "https://other"}})
    value["current-context"] = "z"


def _of_yaml() -> Iterator[Odd]:
    good = dumped(config()).decode()
    yield text("empty", "", "no cluster is configured")
    yield text("white space", "\n  \n", "no cluster is configured")
    yield text("a comment", "# nothing\n", "no cluster is configured")
    yield text("null", "null\n", "no cluster is configured")
    yield text("an empty mapping", "{}\n", "no cluster is configured")
    yield text("a list", "- a\n", "Expected `object`, got `array`")
    yield text("text", "hello\n", "Expected `object`, got `str`")
    yield text("JSON", json.dumps(config()))
    yield text("JSON with tabs", json.dumps(config(), indent="\t"))
    yield text("a tab", good.replace("clusters:\n", "clusters:\n\t", 1), "cannot start any token")
    yield text("zeroes", b"\0" * 100, "not YAML")
    yield text("a zero in the text", good.replace("token: t", 'token: "t\0"'), "not YAML")
    yield text("UTF-8 with a byte order mark", "\ufeff" + good)
    yield text("UTF-16", good.encode("utf-16"))
    yield text("no UTF-8", b"# \xff\xfe\xfd\n" + good.encode(), "not YAML")
    yield text("CRLF", good.replace("\n", "\r\n"))
    yield text(
        "a duplicate key of the file",
        good + "current-context: z\n",
        "no context 'z'",
    )
    yield text("a duplicate key of the user", good.replace("token: t", "token: s\n    token: t"))
    yield text(
        "an alias",
        good.replace(
            "server: https://h:6443", "server: &s https://h:6443\n    tls-server-name: *s"
        ),
    )
    yield text(
        "an alias of an entry",
        "a: &u {token: t}\n" + good.replace("user:\n    token: t", "user: *u"),
    )
    yield text("an undefined alias", good.replace("token: t", "token: *t"), "undefined alias")
    yield text("a merge key", "a: &u {token: t}\n" + good.replace("token: t", "<<: *u"))
    yield text("nested deeply", "a: " + "[" * 20_000, "nested over 100 levels")
    yield text(
        "a second document",
        good + "---\nkind: Config\ncurrent-context: z\n",
        "",
        stricter="document",
    )
    yield text("a second document that is empty", good + "---\n", stricter="document")
    yield text("the end of a document", good + "...\n")
    yield one("another kind", config(change=lambda c: c.update(kind="Secret")), "kind: 'Secret'")
    yield one(
        "another version", config(change=lambda c: c.update(apiVersion="v2")), "apiVersion: 'v2'"
    )
    yield one(
        "neither kind nor version", config(change=lambda c: [c.pop("kind"), c.pop("apiVersion")])
    )
    yield one("kind alone", config(change=lambda c: c.pop("apiVersion")))
    yield one("version alone", config(change=lambda c: c.pop("kind")))
    yield one(
        "unknown fields",
        config(
            {"token": "t", "color": "red"},
            lambda c: c.update(preferences={"colors": True}, x=[1]),
            disable_compression=True,
            y={"z": 1},
        ),
    )
    yield one(
        "extensions",
        config(
            change=lambda c: c.update(extensions=[{"name": "e", "extension": {"a": 1}}]),
            extensions=[{"name": "minikube.sigs.k8s.io", "extension": {"version": "v1"}}],
        ),
    )
    yield text(
        "fields in other case",
        good.replace("clusters:", "Clusters:").replace("current-context", "Current-Context"),
        "current-context: missing",
    )
    yield text("a token that is yes", good.replace("token: t", "token: yes"), "token: Expected")
    yield text(
        "a date as a name",
        good.replace("name: u", "name: 2026-01-02").replace("user: u", "user: 2026-01-02"),
    )


def _of_names() -> Iterator[Odd]:
    def named(name: str, change: Callable[[Object], object], told: str = "", **more: Any) -> Odd:
        return one(name, config(change=change), told, **more)

    yield named(
        "no current-context", lambda c: c.pop("current-context"), "current-context: missing"
    )
    yield named(
        "an empty current-context",
        lambda c: c.update({"current-context": ""}),
        "current-context: missing",
    )
    yield named(
        "no current-context, but one is chosen", lambda c: c.pop("current-context"), context="x"
    )
    yield named(
        "an unknown current-context", lambda c: c.update({"current-context": "z"}), "no context 'z'"
    )
    yield one("an unknown context is chosen", config(), "no context 'z'", context="z")
    yield named(
        "a current-context that is a number",
        lambda c: c.update({"current-context": 1}),
        "current-context: 1",
    )
    yield named("no contexts", lambda c: c.pop("contexts"), "no context 'x'")
    yield named("contexts as a mapping", lambda c: c.update(contexts={"x": {}}), "contexts")
    yield named("a null context", lambda c: c["contexts"][0].update(context=None), "missing")
    yield named("a null entry", lambda c: c["contexts"].insert(0, None))
    yield named(
        "a context without a cluster",
        lambda c: c["contexts"][0]["context"].pop("cluster"),
        "contexts[x].context.cluster: missing",
    )
    yield named(
        "a context without a user",
        lambda c: c["contexts"][0]["context"].pop("user"),
        stricter="contexts[x].context.user: missing",
    )
    yield named(
        "an unknown cluster",
        lambda c: c["contexts"][0]["context"].update(cluster="d"),
        "no cluster 'd'",
    )
    yield named(
        "an unknown user",
        lambda c: c["contexts"][0]["context"].update(user="v"),
        stricter="no user 'v'",
    )
    yield named("no users", lambda c: c.pop("users"), stricter="no user 'u'")
    yield named(
        "two users of a name",
        lambda c: c["users"].append({"name": "u", "user": {"token": "second"}}),
        "users: there are two with the name 'u'",
    )
    yield named(
        "two clusters of a name",
        lambda c: c["clusters"].append({"name": "c", "cluster": {"server": "https://second"}}),
        "clusters: there are two with the name 'c'",
    )
    yield named(
        "two contexts of a name",
        lambda c: c["contexts"].append({"name": "x", "context": {"cluster": "c", "user": "v"}}),
        "contexts: there are two with the name 'x'",
    )
    yield named(
        "a broken cluster that nothing uses",
        lambda c: c["clusters"].append(
            {"name": "d", "cluster": {"server": "https://d", "certificate-authority": "none"}}
        ),
    )
    yield named(
        "a broken user that nothing uses",
        lambda c: c["users"].append({"name": "v", "user": {"exec": {}}}),
    )
    yield named(
        "data that is not base64 in a user that nothing uses",
        lambda c: c["users"].append({"name": "v", "user": {"client-key-data": "§"}}),
        lenient="it does no harm",
    )
    yield named("a namespace", lambda c: c["contexts"][0]["context"].update(namespace="space"))


def _of_clusters() -> Iterator[Odd]:
    def of(name: str, told: str = "", stricter: str = "", **cluster: Any) -> Odd:
        files = {"ca": keys().ca, "none": b"", "key": keys().key}
        more = {key: cluster.pop(key) for key in ("lenient", "differs") if key in cluster}
        return one(name, config(**cluster), told, stricter=stricter, files=files, **more)

    plain = "client-go sends credentials over TLS alone"

    ca = encoded(keys().ca)
    yield of("no server", "server: missing", server="")
    yield of("a null server", "server: missing", server=None)
    yield of("a server over http", server="http://h:8080", differs=plain)
    yield of("a server with a path", server="https://h/k8s/clusters/c-1")
    yield of("a server with a slash at its end", server="https://h/")
    yield of("a server in IPv6", server="https://[fd00::1]:6443")
    yield of("a server in IPv6 without brackets", "server", server="https://fd00::1:6443")
    yield of("a host alone", server="h:6443", differs=plain)
    yield of(
        "a host alone, with a CA",
        server="h:6443",
        certificate_authority_data=ca,
        differs="client-go does not use the CA, over http",
    )
    yield of("another scheme", stricter="server: 'ftp://h'", server="ftp://h")
    yield of("no host", "server", server="https://")
    yield of("a port that is too high", stricter="server: ", server="https://h:99999")
    yield of("a port that is no number", "server", server="https://h:a")
    yield of("a blank in the server", "server", server="https://a b")
    yield of(
        "white space around the server", lenient="it is clear what is meant", server=" https://h "
    )
    yield of(
        "a user in the server",
        stricter="a URL without user and password",
        server=f"https://u:{SECRET}@h",
    )
    yield of("a server that is a list", "server: ['a']", server=["a"])
    yield of("a CA file", certificate_authority="ca")
    yield of("a CA file that is not there", "certificate-authority", certificate_authority="no")
    yield of("a CA file that is empty", stricter="the file is empty", certificate_authority="none")
    yield of("a CA file that is a folder", "certificate-authority", certificate_authority=".")
    yield of(
        "CA data and a CA file",
        "set as well as certificate-authority-data",
        certificate_authority="ca",
        certificate_authority_data=ca,
    )
    yield of(
        "CA data, and a CA file that is not there",
        "set as well as",
        certificate_authority="no",
        certificate_authority_data=ca,
    )
    yield of(
        "CA data in several lines",
        certificate_authority_data="\n".join(ca[at : at + 64] for at in range(0, len(ca), 64)),
    )
    yield of(
        "CA data that is not base64",
        "certificate-authority-data: not base64",
        certificate_authority_data="§",
    )
    yield of(
        "CA data without its padding",
        "certificate-authority-data: not base64",
        certificate_authority_data=encoded(b"pem").rstrip("=") + "A",
    )
    yield of(
        "CA data that is no PEM",
        "certificate-authority-data",
        certificate_authority_data=encoded(b"hello"),
    )
    yield of(
        "CA data that is PEM as it is",
        "certificate-authority-data: not base64",
        certificate_authority_data=keys().ca.decode(),
    )
    yield of(
        "CA data that is a key",
        "certificate-authority-data",
        certificate_authority_data=encoded(keys().key),
    )
    yield of(
        "CA data with something else before it",
        certificate_authority_data=encoded(b"# our CA\n" + keys().ca),
    )
    yield of("insecure", insecure_skip_tls_verify=True)
    yield of(
        "insecure with a CA",
        "insecure-skip-tls-verify",
        insecure_skip_tls_verify=True,
        certificate_authority_data=ca,
    )
    yield of(
        "insecure as text", "insecure-skip-tls-verify: 'true'", insecure_skip_tls_verify="true"
    )
    yield of("insecure over http", server="http://h", insecure_skip_tls_verify=True, differs=plain)
    yield of("a CA over http", server="http://h", certificate_authority_data=ca, differs=plain)
    yield of("a server name", tls_server_name="kubernetes.default.svc")
    yield of("a proxy", proxy_url="http://p:3128")
    yield of("a proxy over TLS", proxy_url="https://p")
    yield of("a proxy with a password", proxy_url=f"http://u:{SECRET}@p:3128")
    yield of("a socks5 proxy", stricter="proxy-url: 'socks5://p:1'", proxy_url="socks5://p:1")
    yield of("a proxy of another scheme", "proxy-url: 'ftp://p'", proxy_url="ftp://p")
    yield of("a proxy without a scheme", "proxy-url: 'p:3128'", proxy_url="p:3128")


def _of_tokens() -> Iterator[Odd]:
    def of(name: str, user: Object, told: str = "", **more: Any) -> Odd:
        files = {"token": b"of the file\n", "none": b"", "blank": b" \n"}
        return one(name, config(user), told, files=files, **more)

    yield of("nobody", {})
    yield of("a null user", {"token": None})
    yield of("a token that is a number", {"token": 5}, "token: Expected")
    yield of("a token that is a list", {"token": [SECRET]}, "token: Expected")
    yield of("a token with a newline", {"token": "t\n"}, lenient="it is clear what is meant")
    yield of("a token with blanks around it", {"token": " t "}, differs="no token has blanks")
    yield of("a token with a newline in it", {"token": f"{SECRET}\nb"}, "holds characters")
    yield of("a token with a control character", {"token": f"{SECRET}\x01"}, "holds characters")
    yield of("a token that is not ASCII", {"token": "tökén"}, stricter="holds characters")
    yield of("a token file", {"tokenFile": "token"})
    yield of("a token file and a token", {"tokenFile": "token", "token": "t"})
    yield of("a token file that is not there", {"tokenFile": "no"}, "tokenFile")
    yield of("a token file that is empty", {"tokenFile": "none"}, "the file is empty")
    yield of("a token file of white space", {"tokenFile": "blank"}, "the file is empty")
    yield of("a token file that is a folder", {"tokenFile": "."}, "not a regular file")
    yield of("a token file that is not there, and a token", {"tokenFile": "no", "token": "t"})
    yield of("a token file that is empty, and a token", {"tokenFile": "none", "token": "t"})
    yield of("a token file in other case", {"tokenfile": "token"})
    yield of("name and password", {"username": "me", "password": SECRET})
    yield of("a name alone", {"username": "me"})
    yield of("a password alone", {"password": SECRET})
    yield of("a name with a colon", {"username": "a:b", "password": SECRET})
    yield of(
        "name and token",
        {"username": "me", "password": SECRET, "token": "t"},
        "username: 'me': set as well as a token",
    )
    yield of(
        "name and token file",
        {"username": "me", "password": SECRET, "tokenFile": "token"},
        "username: 'me': set as well as a token",
    )


def _of_certificates() -> Iterator[Odd]:
    known = keys()
    data = {
        "client-certificate-data": encoded(known.certificate),
        "client-key-data": encoded(known.key),
    }

    def of(name: str, user: Object, told: str = "", **more: Any) -> Odd:
        files = {"crt": known.certificate, "key": known.key, "none": b"", "other": known.other}
        return one(name, config(user), told, files=files, **more)

    yield of("a certificate", data)
    yield of("a certificate and a token", {**data, "token": "t"})
    yield of("a certificate in files", {"client-certificate": "crt", "client-key": "key"})
    yield of(
        "a certificate in a file, its key as data",
        {"client-certificate": "crt", "client-key-data": data["client-key-data"]},
    )
    yield of(
        "a certificate both ways",
        {**data, "client-certificate": "crt"},
        "client-certificate: 'crt': set as well as client-certificate-data",
    )
    yield of(
        "a key both ways",
        {**data, "client-key": "key"},
        "client-key: 'key': set as well as client-key-data",
    )
    yield of(
        "a certificate both ways, the file missing",
        {**data, "client-certificate": "no"},
        "client-certificate: 'no': set as well as",
    )
    yield of(
        "a certificate without a key",
        {"client-certificate-data": encoded(known.certificate)},
        "client-key: missing",
    )
    yield of("a key without a certificate", {"client-key-data": encoded(known.key)}, stricter="")
    yield of("a key file that is not there, alone", {"client-key": "no", "token": "t"})
    yield of(
        "the key of another",
        {**data, "client-key-data": encoded(known.other)},
        "key values mismatch",
    )
    yield of(
        "an encrypted key",
        {**data, "client-key-data": encoded(known.encrypted)},
        "client-certificate-data",
    )
    yield of(
        "no PEM as a certificate",
        {**data, "client-certificate-data": encoded(b"hello")},
        "client-certificate-data",
    )
    yield of(
        "no PEM as a key", {**data, "client-key-data": encoded(b"hello")}, "client-certificate-data"
    )
    yield of(
        "certificate and key the wrong way round",
        {
            "client-certificate-data": encoded(known.key),
            "client-key-data": encoded(known.certificate),
        },
        "client-certificate-data",
    )
    yield of(
        "certificate and key in one",
        {
            "client-certificate-data": encoded(known.certificate + known.key),
            "client-key-data": encoded(known.certificate + known.key),
        },
    )
    yield of(
        "a key that is not base64", {**data, "client-key-data": "§"}, "client-key-data: not base64"
    )
    yield of(
        "a certificate file that is not there",
        {"client-certificate": "no", "client-key": "key"},
        "client-certificate",
    )
    yield of(
        "a certificate file that is empty",
        {"client-certificate": "none", "client-key": "key"},
        stricter="the file is empty",
    )


def _of_impersonation() -> Iterator[Odd]:
    def of(name: str, told: str = "", stricter: str = "", **user: Any) -> Odd:
        value = {
            "token": "t",
            **{key.replace("_", "-").strip("-"): one_of for key, one_of in user.items()},
        }
        return one(name, config(value), told, stricter=stricter)

    yield of("as a user", as_="me")
    yield of(
        "as a user with all else",
        as_="me",
        as_uid="7",
        as_groups=["a", "b"],
        as_user_extra={"k": ["1", "2"], "example.com/K 2": ["3"]},
    )
    yield of("as groups alone", "as-groups: ['a']: set without as", as_groups=["a"])
    yield of("as a uid alone", "as-uid: '7': set without as", as_uid="7")
    yield of("as extra alone", "as-user-extra", as_user_extra={"k": ["v"]})
    yield of("as groups that are text", "as-groups: 'a'", as_="me", as_groups="a")
    yield of("as a user that is a number", "as: 5", as_=5)
    yield of("as an empty user", as_="")


def _of_plugins() -> Iterator[Odd]:
    def of(
        name: str,
        told: str = "",
        answer: Object | str = "",
        change: Object | None = None,
        **more: Any,
    ) -> Odd:
        value = {**EXEC, **(change or {})}
        user = {**more.pop("user", {}), "exec": {k: v for k, v in value.items() if v is not None}}
        files = {"plugin": plugin(answer), "bin/plugin": plugin(), **more.pop("files", {})}
        return one(name, config(user), told, files=files, **more)

    credential = {"apiVersion": V1, "kind": "ExecCredential"}
    yield of("a plugin")
    yield of("a plugin in a folder", change={"command": "bin/plugin"})
    yield of(
        "a plugin of v1beta1",
        answer={**credential, "apiVersion": V1BETA1, "status": {"token": "issued"}},
        change={"apiVersion": V1BETA1},
    )
    yield of("a plugin of v1alpha1", "exec.apiVersion", change={"apiVersion": f"{V1}alpha1"})
    yield of("a plugin without a version", "exec.apiVersion", change={"apiVersion": None})
    yield of(
        "a plugin of another version than it answers",
        "did not write|wrote",
        answer={**credential, "apiVersion": V1BETA1, "status": {"token": "t"}},
    )
    yield of("a plugin without a command", "exec.command: missing", change={"command": None})
    yield of("a plugin that is not there", "exec.command", change={"command": "./no"})
    yield of(
        "a plugin that is not on the path",
        "exec.command",
        change={"command": "no-such-plugin", "installHint": "install it"},
    )
    yield of(
        "a plugin that is no program",
        "exec.command",
        change={"command": "./text"},
        files={"text": b"hello"},
    )
    yield of(
        "a plugin without a mode, of v1",
        "",
        change={"interactiveMode": None},
        lenient="a plugin that may ask nobody needs no mode",
    )
    yield of(
        "a plugin without a mode, of v1beta1",
        answer={**credential, "apiVersion": V1BETA1, "status": {"token": "issued"}},
        change={"interactiveMode": None, "apiVersion": V1BETA1},
    )
    yield of(
        "a plugin of an unknown mode",
        "exec.interactiveMode: 'No'",
        change={"interactiveMode": "No"},
    )
    yield of(
        "a plugin that must ask",
        "exec.interactiveMode: 'Always'",
        change={"interactiveMode": "Always"},
    )
    yield of("a plugin with null arguments", change={"args": None, "env": []})
    yield of(
        "a plugin with a number as an argument", "exec.args[0]: Expected", change={"args": [1]}
    )
    yield of("a plugin with a variable", change={"env": [{"name": "A", "value": "b"}]})
    yield of("a plugin that says nothing", "exec.command", answer="\n")
    yield of("a plugin that says no JSON", "exec.command", answer=SECRET)
    yield of("a plugin that issues nothing", "exec.command", answer=credential)
    yield of(
        "a plugin that issues an empty status", "exec.command", answer={**credential, "status": {}}
    )
    yield of(
        "a plugin that issues a certificate alone",
        "exec.command",
        answer={**credential, "status": {"clientCertificateData": "a"}},
    )
    yield of(
        "a plugin that issues what has expired",
        stricter="expired",
        answer={
            **credential,
            "status": {"token": "t", "expirationTimestamp": "2020-01-01T00:00:00Z"},
        },
    )
    yield of(
        "a plugin that issues a date that is none",
        "exec.command",
        answer={**credential, "status": {"token": "t", "expirationTimestamp": "soon"}},
    )
    yield of("a plugin that is told about the cluster", change={"provideClusterInfo": True})
    yield of("a plugin beside a token", user={"token": "t"})
    yield of(
        "a broken plugin beside a token",
        "exec.command: missing",
        user={"token": "t"},
        change={"command": None},
    )
    known = keys()
    pair = {
        "client-certificate-data": encoded(known.certificate),
        "client-key-data": encoded(known.key),
    }
    yield of("a plugin beside a certificate", user=pair)
    yield of("a plugin beside name and password", user={"username": "me", "password": SECRET})
    yield of(
        "a plugin beside a provider",
        "exec: set as well as auth-provider",
        user={"auth-provider": {"name": "oidc"}},
    )
    failing = b"#!/bin/sh\necho no luck >&2\nexit 3\n"
    yield of(
        "a plugin that fails",
        "exited with code 3: no luck",
        change={"command": "./failing-plugin"},
        files={"failing-plugin": failing},
    )
    yield of(
        "a plugin that may not be run",
        "exec.command",
        change={"command": "./mere-text"},
        files={"mere-text": failing},
    )


def _of_providers() -> Iterator[Odd]:
    def of(name: str, provider: Object, told: str = "", **more: Any) -> Odd:
        return one(name, config({"auth-provider": provider, **more.pop("user", {})}), told, **more)

    yield of("the provider gcp", {"name": "gcp"}, "auth-provider.name: 'gcp'")
    yield of("the provider azure", {"name": "azure"}, "auth-provider.name: 'azure'")
    yield of("a provider without a name", {}, "auth-provider.name: ''")
    yield of(
        "a provider without an issuer",
        {"name": "oidc", "config": {"client-id": "a"}},
        "idp-issuer-url: missing",
    )
    yield of(
        "a provider without a client",
        {"name": "oidc", "config": {"idp-issuer-url": "https://i"}},
        "client-id: missing",
    )
    yield of(
        "a provider with a token that is none",
        {
            "name": "oidc",
            "config": {"idp-issuer-url": "https://i", "client-id": "a", "id-token": SECRET},
        },
        "id-token",
    )
    yield of(
        "a provider without tokens",
        {"name": "oidc", "config": {"idp-issuer-url": "https://i", "client-id": "a"}},
        "refresh-token: missing",
    )
    yield of(
        "a provider beside a token",
        {"name": "oidc", "config": {"idp-issuer-url": "https://i", "client-id": "a"}},
        user={"token": "t"},
    )


def asked() -> dict[str, Object]:
    """Return what client-go makes of each case, by its name."""
    given = list(cases())
    with tempfile.TemporaryDirectory() as folder:
        questions = []
        for number, case in enumerate(given):
            own = Path(folder) / str(number)
            own.mkdir()
            questions.append(
                {"Name": case.name, "Kubeconfig": case.write(own), "Context": case.context}
            )
        done = subprocess.run(
            ["go", "run", "."],
            cwd=HERE / "client_go",
            input=json.dumps(questions).encode(),
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "HOME": folder, "GOPATH": _go("GOPATH"), "GOCACHE": _go("GOCACHE")},
        )
        text_of = done.stdout.decode().replace(folder, "")
    found: dict[str, Object] = json.loads(text_of)
    return found


def _go(variable: str) -> str:
    done = subprocess.run(["go", "env", variable], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    if shutil.which("go") is None:
        sys.exit("there is no go on the PATH")
    found = asked()
    RECORDED.write_text(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"{RECORDED}: {len(found)} answers")

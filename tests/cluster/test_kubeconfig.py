"""A kubeconfig means what it means to client-go, and an odd one is told on one line."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_asyncio.config import incluster_config

from noderestrict.cli import main
from noderestrict.cluster.access import Access
from noderestrict.cluster.errors import ConnectionFailedError
from noderestrict.cluster.locate import find_access

Object = dict[str, Any]
CASES = Path(__file__).parent / "connections"
SECRET = "hush"


@pytest.fixture(autouse=True)
def no_other_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only what a test sets itself."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def config(user: Object | None = None, **cluster: Any) -> Object:
    """Return a kubeconfig, with fields of its user and its cluster."""
    cluster = {key.replace("_", "-"): value for key, value in cluster.items()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://h:6443", **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


def access(folder: Path, value: Object, context: str | None = None) -> Access:
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(value))
    return find_access(str(file), context)


def refusal(folder: Path, value: Object, context: str | None = None) -> str:
    with pytest.raises(ConnectionFailedError) as error:
        access(folder, value, context)
    return str(error.value).removeprefix(f"--kubeconfig {folder}/kubeconfig: ")


# What cannot be read at all.

NESTED = b"a: " + b"[" * 100_000
BOMB = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)
UNREADABLE = {
    "a tab": (b"clusters:\n\t- name: c\n", "line 2: found character that cannot start any token"),
    "a tab, then an alias": (b"a: *b\n", "line 1: found undefined alias"),
    "half a mapping": (b"clusters: {", "line 2: "),
    "empty": (b"", "empty"),
    "a comment": (b"# nothing\n", "empty"),
    "null": (b"null\n", "empty"),
    "text": (b"hello", "Expected `object`, got `str`"),
    "a list": (b"- a\n- b\n", "Expected `object`, got `array`"),
    "binary": (bytes(range(256)) * 40, "not YAML: "),
    "zeroes": (bytes(5000), "not YAML: "),
    "no text": (b"a: \xff\xfe\n", "not YAML: "),
    "a certificate": (b"-----BEGIN CERTIFICATE-----\nAAAA\n", ""),
    "two documents": (b"a: b\n---\na: c\n", "document"),
    "deep": (NESTED, "nested over 100 levels deep"),
    "an alias bomb": (BOMB, "aliases"),
    "an alias to itself": (b"a: &a [*a]\n", "aliases"),
    "a merge bomb": (
        b"a: &a {k: v}\nb: &b {<<: [*a,*a,*a,*a,*a,*a,*a,*a,*a]}\n"
        + b"".join(
            b"%c: &%c {<<: [%s]}\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9))
            for n in range(ord("b"), ord("m"))
        ),
        "aliases",
    ),
    "many values": (b"[" + b"1," * 300_000 + b"1]", "values"),
    "huge": (b"#" * (5 * 2**20), "longer than"),
    "another object": (b"kind: Secret\napiVersion: v1\n", "kind: 'Secret'"),
    "another version": (b"kind: Config\napiVersion: v2\n", "apiVersion: 'v2'"),
    "a Python object": (b"a: !!python/object:os.system {}\n", "line 1: could not determine"),
    "a number of many digits": (b"a: " + b"9" * 9000, ""),
    "a date that is none": (b"a: !!timestamp 2024-99-99\n", ""),
    "an unhashable key": (b"? [a]\n: b\n", "line 1: found unhashable key"),
}


@pytest.mark.parametrize("odd", UNREADABLE)
def test_what_is_no_kubeconfig_is_told_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str
) -> None:
    content, problem = UNREADABLE[odd]
    file = tmp_path / "config"
    file.write_bytes(content)
    assert main(["graph", "reachable", "w", "--kubeconfig", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"noderestrict graph: --kubeconfig {file}")
    assert problem in err
    assert err.count("\n") == 1
    assert len(err) < 1000


@pytest.mark.parametrize("command", ["graph reachable w", "doctor", "certs check --secret a/b"])
def test_every_command_tells_the_place_of_a_tab(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = CASES / "e01-kubeconfig-tab.yaml"
    assert main([*command.split(), "--kubeconfig", str(file)]) == 2
    assert f"{file}, line 3: found character" in capsys.readouterr().err


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, problem in (
        (tmp_path, "not a regular file"),
        (pipe, "not a regular file"),
        (loop, "Too many levels of symbolic links"),
        (tmp_path / "none", "No such file or directory"),
        (f"{tmp_path}/none:{tmp_path}/other", "No such file or directory"),
        ("x" * 5000, "File name too long"),
    ):
        with pytest.raises(ConnectionFailedError, match=f"--kubeconfig .*: {problem}"):
            find_access(str(path), None)


# What is wrong with a value.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.update(clusters=5), "clusters: 5: Expected `array | null`, got `int`"),
        (lambda c: c.update(users=["u"]), "users[0]: 'u': Expected `object | null`, got `str`"),
        (
            lambda c: c["clusters"][0]["cluster"].update(server=["a"]),
            "clusters[0].cluster.server: ['a']: Expected `str | null`, got `array`",
        ),
        (
            lambda c: c["clusters"][0]["cluster"].update({"insecure-skip-tls-verify": "true"}),
            "clusters[0].cluster.insecure-skip-tls-verify: 'true': Expected `bool | null`",
        ),
        (lambda c: c.pop("current-context"), "current-context: missing; set it, or --context, to "
                                             "one of 'x'"),
        (lambda c: c.update({"current-context": "y"}), "current-context: there is no context 'y'; "
                                                       "there are: 'x'"),
        (lambda c: c.update({"current-context": 7}), "current-context: 7: Expected"),
        (lambda c: c.update(contexts=None), "current-context: there is no context 'x'; there are: "
                                            "none"),
        (lambda c: c.update(clusters=[]), "contexts[x].context.cluster: there is no cluster 'c'"),
        (lambda c: c.update(users=None), "contexts[x].context.user: there is no user 'u'"),
        (lambda c: c["contexts"][0]["context"].pop("user"), "contexts[x].context.user: missing"),
        (lambda c: c["contexts"][0].update(context=None), "contexts[x].context.cluster: missing"),
        (lambda c: c["users"].append(c["users"][0]), "users: there are two with the name 'u'"),
        (lambda c: c["clusters"][0].update(cluster={}), "clusters[c].cluster.server: missing"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_told_with_its_place(
    tmp_path: Path, change: Callable[[Object], object], told: str
) -> None:
    value = config()
    change(value)
    assert refusal(tmp_path, value).startswith(told)


def test_an_unknown_context_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    assert refusal(tmp_path, config(), "prod") == (
        "--context: there is no context 'prod'; there are: 'x'"
    )


PEM = base64.b64encode(b"pem").decode()


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"server": "ftp://h"}, "server: 'ftp://h': a URL with http or https is needed"),
        ({"server": "https://"}, "server: 'https://': invalid URL"),
        ({"server": "https://h:99999"}, "server: 'https://h:99999': invalid URL: Port out of"),
        ({"server": "https://[::1"}, "server: 'https://[::1': invalid URL"),
        ({"server": "https://a b"}, "server: 'https://a b': invalid URL"),
        ({"server": "https://h\n"}, None),
        ({"server": f"https://u:{SECRET}@h"}, "server: a URL without user and password is needed"),
        ({"proxy_url": "socks5://p:1"}, "proxy-url: 'socks5://p:1': a URL with http or https"),
        ({"proxy_url": "p:1"}, "proxy-url: 'p:1': a URL with http or https is needed"),
        ({"proxy_url": f"gopher://u:{SECRET}@p"}, "proxy-url: 'gopher://…@p': a URL with"),
        ({"tls_server_name": "a b"}, "tls-server-name: 'a b': not a host name"),
        ({"certificate_authority": "a", "certificate_authority_data": PEM},
         "certificate-authority: 'a': set as well as certificate-authority-data"),
        ({"certificate_authority_data": "§"}, "certificate-authority-data: not base64"),
        ({"certificate_authority_data": PEM, "insecure_skip_tls_verify": True},
         "insecure-skip-tls-verify: True: excludes a certificate authority"),
    ],
)  # fmt: skip
def test_a_wrong_cluster_is_told_with_field_and_value(
    tmp_path: Path, cluster: Object, told: str | None
) -> None:
    if told is None:
        assert access(tmp_path, config(**cluster)).cluster.server == "https://h"
        return
    text = refusal(tmp_path, config(**cluster))
    assert text.startswith(f"clusters[c].cluster.{told}")
    assert SECRET not in text


V1 = "client.authentication.k8s.io/v1"
EXEC = {"apiVersion": V1, "command": "c", "interactiveMode": "Never"}
OIDC = {"idp-issuer-url": "https://i", "client-id": "me", "id-token": SECRET}


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({"token": 5}, "token: Expected `str | null`, got `int`"),
        ({"token": [SECRET]}, "token: Expected `str | null`, got `array`"),
        ({"client-key-data": {SECRET: 1}}, "client-key-data: Expected"),
        ({"client-certificate-data": PEM}, "client-key: missing, but there is a client cert"),
        ({"client-certificate": "c"}, "client-key: missing, but there is a client certificate"),
        ({"client-certificate": "c", "client-certificate-data": PEM, "client-key-data": PEM},
         "client-certificate: 'c': set as well as client-certificate-data"),
        ({"client-certificate": "c", "client-key": "k", "client-key-data": PEM},
         "client-key: 'k': set as well as client-key-data"),
        ({"username": "me", "password": SECRET, "token": SECRET},
         "username: 'me': set as well as a token"),
        ({"as-groups": ["g"]}, "as-groups: ['g']: set without as"),
        ({"as-uid": "1"}, "as-uid: '1': set without as"),
        ({"as-user-extra": {"k": ["v"]}}, "as-user-extra: {'k': ['v']}: set without as"),
        ({"as": "a\nb"}, "as: 'a\\nb': no value of a header"),
        ({"as": "a", "as-groups": ["b\r\nX: y"]}, "as-groups: 'b\\r\\nX: y': no value of a"),
        ({"as": "a", "as-groups": "g"}, "as-groups: 'g': Expected `array | null`, got `str`"),
        ({"as": "a", "as-user-extra": {"k": "v"}}, "as-user-extra[...]: {'k': 'v'}: Expected"),
        ({"as": True}, "as: True: Expected `str | null`, got `bool`"),
        ({"exec": EXEC, "auth-provider": {"name": "oidc"}}, "exec: set as well as auth-provider"),
        ({"exec": {**EXEC, "command": None}}, "exec.command: missing"),
        ({"exec": {**EXEC, "apiVersion": f"{V1}alpha1"}},
         f"exec.apiVersion: '{V1}alpha1': {V1} or {V1}beta1 is needed"),
        ({"exec": {"command": "c"}}, f"exec.apiVersion: '': {V1} or"),
        ({"exec": {**EXEC, "interactiveMode": "No"}}, "exec.interactiveMode: 'No': Never, IfAv"),
        ({"exec": {**EXEC, "args": [SECRET, 1]}}, "exec.args[1]: Expected `str`, got `int`"),
        ({"exec": {**EXEC, "args": SECRET}}, "exec.args: Expected `array | null`, got `str`"),
        ({"exec": {**EXEC, "env": {"A": SECRET}}}, "exec.env: Expected `array | null`, got"),
        ({"exec": {**EXEC, "env": [{"value": SECRET}]}}, "exec.env: '': no name of a variable"),
        ({"exec": {**EXEC, "env": [{"name": "A=B"}]}}, "exec.env: 'A=B': no name of a variable"),
        ({"exec": "aws"}, "exec: 'aws': Expected `object | null`, got `str`"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider.name: 'gcp': only oidc is known"),
        ({"auth-provider": {}}, "auth-provider.name: '': only oidc is known"),
        ({"auth-provider": {"name": "oidc", "config": {"client-id": "a"}}},
         "auth-provider.config.idp-issuer-url: missing"),
        ({"auth-provider": {"name": "oidc", "config": {**OIDC, "client-id": ""}}},
         "auth-provider.config.client-id: missing"),
    ],
)  # fmt: skip
def test_a_wrong_user_is_told_with_field_and_value_but_no_secret(
    tmp_path: Path, user: Object, told: str
) -> None:
    text = refusal(tmp_path, config(user))
    assert text.startswith((f"users[u].user.{told}", f"users[0].user.{told}"))
    assert SECRET not in text


# What a kubeconfig means.


def test_the_first_file_that_sets_something_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = config({"token": "one"}), config({"token": "two"}, server="https://two")
    del one["current-context"], one["clusters"]
    two["contexts"].append({"name": "y", "context": {"cluster": "c", "user": "v"}})
    two["users"].append({"name": "v", "user": {"token": "v"}})
    two["current-context"] = "y"
    third = {**config(), "current-context": "x"}
    names = []
    for folder, value in {"1": one, "2": two, "3": third}.items():
        (tmp_path / folder).mkdir()
        names.append(tmp_path / folder / "config")
        names[-1].write_text(json.dumps(value))
    # Empty and missing names are skipped.
    listed = os.pathsep.join(["", str(tmp_path / "none"), *map(str, names)])
    monkeypatch.setenv("KUBECONFIG", listed)
    found = find_access(None, None)
    assert (found.user.token, found.cluster.server) == ("v", "https://two")
    found = find_access(None, "x")
    assert (found.user.token, found.cluster.server) == ("one", "https://two")
    # The flag takes such a list as well.
    assert find_access(listed, "x").user.token == "one"


def test_paths_are_relative_to_their_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = config({"tokenFile": "token", "client-certificate": "../c.pem", "client-key": "/k.pem"})
    cluster = config(certificate_authority="ca.crt")
    del user["clusters"], cluster["users"]
    for folder, value in {"a": user, "b": cluster}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config").write_text(yaml.safe_dump(value))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(["a/config", "b/config"]))
    found = find_access(None, None)
    monkeypatch.chdir("/")

    def path(content: Any) -> str:
        return str(content.path)

    assert path(found.user.token_file) == f"{tmp_path}/a/token"
    assert os.path.normpath(path(found.user.certificate)) == f"{tmp_path}/c.pem"
    assert path(found.user.key) == "/k.pem"
    assert path(found.cluster.ca) == f"{tmp_path}/b/ca.crt"


@pytest.mark.parametrize(
    ("command", "run"), [("aws", "aws"), ("./aws", "{}/aws"), ("b/aws", "{}/b/aws"), ("/a", "/a")]
)
def test_a_plugin_with_a_path_is_relative_to_its_file(
    tmp_path: Path, command: str, run: str
) -> None:
    found = access(tmp_path, config({"exec": {**EXEC, "command": command, "args": ["x"]}}))
    assert found.user.plugin is not None
    assert found.user.plugin.command == (run.format(tmp_path), "x")


def test_impersonation_becomes_the_headers_of_client_go(tmp_path: Path) -> None:
    extra = {"example.com/a b": ["1", "2"], "ünï%": ["3"], "none": None}
    user = {"as": "me", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": extra}
    assert access(tmp_path, config(user)).user.impersonation == (
        ("Impersonate-User", "me"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-example.com%2Fa%20b", "1"),
        ("Impersonate-Extra-example.com%2Fa%20b", "2"),
        ("Impersonate-Extra-%C3%BCn%C3%AF%25", "3"),
    )


@pytest.mark.parametrize(
    ("cluster", "server"),
    [
        ({"server": "https://h/k8s/clusters/c-1/"}, "https://h/k8s/clusters/c-1"),
        ({"server": "h:8080"}, "http://h:8080"),
        ({"server": "h:6443", "certificate_authority_data": PEM}, "https://h:6443"),
        ({"server": "h:6443", "insecure_skip_tls_verify": True}, "https://h:6443"),
        ({"server": "https://[fd00::1]:6443"}, "https://[fd00::1]:6443"),
    ],
)
def test_the_server_is_that_of_client_go(tmp_path: Path, cluster: Object, server: str) -> None:
    assert access(tmp_path, config(**cluster)).cluster.server == server


def test_yaml_is_read_as_go_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "config"
    value = config({"token": "t"})
    # JSON with tabs, as some tools write it.
    file.write_text(json.dumps(value, indent="\t"))
    assert find_access(str(file), None).user.token == "t"
    # A date is text, a mark of the byte order is skipped, unknown fields are ignored.
    value["contexts"][0]["name"] = value["current-context"] = "DATE"
    value["preferences"] = {"colors": True}
    text = yaml.safe_dump(value).replace("DATE", "2024-01-01")
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text(text, encoding)
        assert find_access(str(file), None).user.token == "t"


def test_null_is_as_good_as_missing(tmp_path: Path) -> None:
    value = config({"token": None, "exec": None, "as-groups": None}, certificate_authority=None)
    value["users"].insert(0, None)
    found = access(tmp_path, value)
    assert (found.user.token, found.user.plugin, found.cluster.ca) == ("", None, None)


# Where a kubeconfig is looked for.


def in_pod(folder: Path, monkeypatch: pytest.MonkeyPatch, host: str = "10.0.0.1") -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(folder / "token"))


def test_the_home_directory_is_looked_at_after_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / ".kube"
    home.mkdir(parents=True)
    (home / "config").write_text(json.dumps(config({"token": "home"})))
    assert find_access(None, None).user.token == "home"
    assert find_access("~/.kube/config", None).user.token == "home"
    other = tmp_path / "other"
    other.write_text(json.dumps(config({"token": "other"})))
    monkeypatch.setenv("KUBECONFIG", str(other))
    assert find_access(None, None).user.token == "other"
    assert find_access("~/.kube/config", None).user.token == "home"


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_a_pod_uses_its_service_account_where_there_is_no_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    in_pod(tmp_path, monkeypatch, host)
    empty = tmp_path / "empty"
    empty.touch()
    for variable in ("", str(tmp_path / "none"), str(empty)):
        monkeypatch.setenv("KUBECONFIG", variable)
        found = find_access(None, None)
        assert found.cluster.server == server
        assert found.user.token_file is not None
        assert found.user.token_file.path == tmp_path / "token"


def test_a_home_directory_that_nobody_may_read_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(tmp_path, monkeypatch)
    home = tmp_path / "home" / ".kube"
    home.mkdir(parents=True)
    (home / "config").write_text("{")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert find_access(None, None).cluster.server == "https://10.0.0.1:443"


def test_a_kubeconfig_comes_before_the_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(tmp_path, monkeypatch)
    file = tmp_path / "config"
    file.write_text(json.dumps(config({"token": "t"})))
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert find_access(None, None).user.token == "t"


def test_a_context_without_a_kubeconfig_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(tmp_path, monkeypatch)
    with pytest.raises(ConnectionFailedError, match="--context prod: there is no kubeconfig"):
        find_access(None, "prod")


def test_who_has_no_cluster_is_told_what_to_set() -> None:
    with pytest.raises(ConnectionFailedError, match="set --kubeconfig"):
        find_access(None, None)

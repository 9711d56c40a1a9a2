"""What a caller without any credential learns from a server that knows a cluster."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admission.test_review import NODE
from tests.serving.clients import BAD
from tests.serving.tls import Server, serving

#: In every value that only the cluster knows.
SECRET = "zq7"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"namespace": "bank", "name": "db-0", "uid": f"{SECRET}-pod-uid"},
    "spec": {
        "nodeName": f"{SECRET}-node",
        "serviceAccountName": f"{SECRET}-account",
        "volumes": [
            {
                "name": "token",
                "projected": {
                    "sources": [{"serviceAccountToken": {"audience": f"{SECRET}-audience"}}]
                },
            },
            {"name": "secret", "secret": {"secretName": "password"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": f"{SECRET}-claim"}},
        ],
    },
}
STATE = {
    "kind": "List",
    "items": [
        POD,
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": f"{SECRET}-uid"}},
    ],
}


def asked(resource: str, operation: str, name: str, sub: str = "", **objects: object) -> bytes:
    group = "authentication.k8s.io" if sub == "token" else ""
    request = {
        "uid": f"{resource}-{sub}-{operation}",
        "operation": operation,
        "namespace": "bank",
        "name": name,
        "subResource": sub,
        "resource": {"group": "", "version": "v1", "resource": resource},
        "kind": {"group": group, "version": "v1", "kind": "TokenRequest"} if group else None,
        "userInfo": NODE,
        **objects,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(review).encode()


TOKEN = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {
        "audiences": ["vault"],
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": "guess"},
    },
}
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "db-0"}}
MIRROR = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "static",
        "namespace": "bank",
        "annotations": {"kubernetes.io/config.mirror": ""},
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "guess", "controller": True}
        ],
    },
    "spec": {"nodeName": "n1"},
}
REFUSED = [
    asked("pods", "CREATE", "db-0", "eviction", object=EVICTION),
    asked("pods", "CREATE", "static", object=MIRROR),
    asked("pods", "UPDATE", "db-0", "status", object=POD | {"spec": {}}, oldObject=POD),
    asked("serviceaccounts", "CREATE", "db", "token", object=TOKEN),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("answers")
    (folder / "cluster.json").write_text(json.dumps(STATE))
    flags = ("--state", str(folder / "cluster.json"), "--authorizer")
    with serving(folder, *flags, state=False) as running:
        yield running


def everything(server: Server, path: str, body: bytes | None = None, method: str = "") -> str:
    """Return a whole answer as a caller sees it: head and body."""
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context)
    method = method or ("GET" if body is None else "POST")
    connection.request(method, path, body, {"Content-Type": "application/json"})
    with connection.getresponse() as answer:
        text = answer.read().decode()
    connection.close()
    return f"{answer.status} {answer.reason}\n{answer.headers}\n{text}"


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: json.loads(body)["request"]["uid"])
def test_a_refusal_tells_the_log_what_was_found_and_the_caller_only_that_it_differs(
    server: Server, body: bytes
) -> None:
    uid = json.loads(body)["request"]["uid"]
    answer = everything(server, "/validate", body)
    assert '"allowed":false' in answer
    assert SECRET not in answer
    (line,) = map(json.loads, server.wait_for_log(uid))
    assert SECRET not in line["why"]
    assert SECRET in line["detail"]


def question_about_a_secret(user: str) -> bytes:
    spec = {
        "user": user,
        "groups": ["system:nodes"],
        "resourceAttributes": {
            "verb": "get", "resource": "secrets", "namespace": "bank", "name": "password",
        },
    }  # fmt: skip
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return json.dumps(review).encode()


def test_a_question_about_a_secret_tells_no_way_to_it(server: Server) -> None:
    answer = everything(server, "/authorize", question_about_a_secret("system:node:n1"))
    assert '"allowed":false' in answer
    assert SECRET not in answer


def test_an_answer_does_not_grow_with_the_names_in_a_request(server: Server) -> None:
    user = "system:node:" + "\u202e" * 100_000
    review = json.loads(BAD)
    review["request"]["userInfo"]["username"] = user
    for path, body in (
        ("/authorize", question_about_a_secret(user)),
        ("/validate", json.dumps(review).encode()),
    ):
        status, answer, _ = server.request(path, body)
        assert status == 200
        assert b"u202e" in answer
        assert len(answer) < 64 * 1024


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/livez", None, "GET"),
        ("/readyz", None, "GET"),
        ("/readyz?verbose", None, "GET"),
        ("/metrics", None, "GET"),
        ("/", None, "GET"),
        ("/validate", None, "GET"),
        ("/validate", b"{", "POST"),
        ("/validate", b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}', "POST"),
        ("/authorize", b"[]", "POST"),
        ("/authorize", b"{}", "PATCH"),
    ],
)
def test_no_other_answer_tells_of_the_cluster_or_of_what_the_server_is_made_of(
    server: Server, path: str, body: bytes | None, method: str
) -> None:
    answer = everything(server, path, body, method)
    assert SECRET not in answer
    assert "aiohttp" not in answer.lower()
    assert "python" not in answer.lower()
    assert "\nserver:" not in answer.lower()


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /validate HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\nAccept: text/html\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_without_a_word_on_what_the_server_is_made_of(
    server: Server, data: bytes
) -> None:
    plain = socket.create_connection(("127.0.0.1", server.port), 10)
    with server.context.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(data)
        answer = connection.recv(4096).decode()
    assert answer.startswith("HTTP/1.")
    assert " 400 " in answer.splitlines()[0]
    assert "\nserver:" not in answer.lower()
    assert "aiohttp" not in answer


def test_no_metric_tells_a_name_of_the_cluster_or_of_a_caller(server: Server) -> None:
    everything(server, "/validate", REFUSED[0])
    exposed = server.metrics()
    assert 'rule="pods/evict-own"' in exposed
    for name in (SECRET, "bank", "db-0", "n1", "vault"):
        assert name not in exposed

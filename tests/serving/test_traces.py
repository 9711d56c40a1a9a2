"""Spans of reviews, which continue the API server's trace."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from noderestrict import authorization
from noderestrict.cli import main
from noderestrict.graph.rules import Opinion
from noderestrict.policy.modes import WARN
from noderestrict.serving.limits import Limits
from noderestrict.serving.modes import Modes
from noderestrict.serving.traces import SpanReporter, TracedAuthorizer, Traces
from noderestrict.telemetry.tracing import tracing
from tests.admission.test_review import body
from tests.serving.clients import GOOD, http
from tests.serving.inprocess import listening
from tests.serving.tls import SECONDS, Server, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE}-{PARENT}-{flag}" for flag in ("01", "00"))


class Memory(SpanExporter):
    """Keeps spans."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


@contextmanager
def recorded(per_million: int = 0) -> Iterator[tuple[Tracer, list[ReadableSpan]]]:
    """Yield a tracer, and the spans that it has exported once the body has ended."""
    memory = Memory()
    tracer, end = tracing("http://127.0.0.1:1/", per_million, memory)
    try:
        yield tracer, memory.spans
    finally:
        end()


class Opinions:
    """Has one opinion on everything."""

    def __init__(self, opinion: Opinion | None) -> None:
        self.opinion = opinion

    async def authorize(
        self, review: authorization.Review, deadline: float, peer: str = ""
    ) -> Opinion | None:
        return self.opinion


async def spans(
    *requests: bytes,
    traceparent: str = SAMPLED,
    per_million: int = 0,
    modes: Modes | None = None,
    opinion: Opinion | None = None,
) -> tuple[list[ReadableSpan], list[int]]:
    """Return the spans of some requests, and the statuses of their answers."""
    statuses = []
    with recorded(per_million) as (tracer, found):
        async with listening(
            Limits(),
            modes=modes,
            authorizer=TracedAuthorizer(Opinions(opinion)),
            reporters=[SpanReporter()],
            traced=Traces(tracer).endpoint,
        ) as server:
            client = await server.connect()
            for request in requests:
                header = f"traceparent: {traceparent}\r\n".encode() if traceparent else b""
                head, _, rest = request.partition(b"\r\n")
                status, _, _ = await client.answer(head + b"\r\n" + header + rest)
                statuses.append(status)
            client.abort()
    return found, statuses


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


async def test_a_span_continues_the_trace_of_the_api_server() -> None:
    ((span,), _) = await spans(http(body()))
    assert span.parent is not None
    context = span.get_span_context()
    assert context is not None
    assert f"{context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert (span.name, span.kind) == ("POST /validate", SpanKind.SERVER)
    assert span.resource.attributes["service.name"] == "noderestrict"


async def test_a_refusal_says_who_was_refused_what_by_which_rule() -> None:
    ((span,), _) = await spans(http(body()))
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/validate",
        "http.response.status_code": 200,
        "k8s.node.name": "n1",
        "noderestrict.resource": "nodes",
        "noderestrict.operation": "UPDATE",
        "noderestrict.decision": "denied",
        "noderestrict.rule": "nodes/own-name",
        "noderestrict.mode": "enforce",
    }
    assert span.status.status_code is StatusCode.UNSET


async def test_an_allowed_request_says_so() -> None:
    ((span,), _) = await spans(http(GOOD))
    assert attributes(span)["noderestrict.decision"] == "allowed"
    assert attributes(span)["noderestrict.resource"] == "pods/status"
    assert "noderestrict.rule" not in attributes(span)


async def test_what_is_only_reported_says_so() -> None:
    ((span,), _) = await spans(http(body()), modes=Modes(WARN))
    assert attributes(span)["noderestrict.decision"] == "would-be-denied"
    assert attributes(span)["noderestrict.mode"] == "warn"
    assert [event.name for event in span.events] == ["would-be-denied"] * len(span.events)
    assert span.events


def access_review(user: str = "system:node:n1") -> bytes:
    return json.dumps(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": ["system:nodes"],
                "resourceAttributes": {
                    "verb": "get", "resource": "secrets", "namespace": "a", "name": "b"
                },
            },
        }
    ).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("opinion", "expected"),
    [
        (Opinion(allowed=True), "allowed"),
        (Opinion(allowed=False, reason="no path"), "no-opinion"),
    ],
)
async def test_an_opinion_of_the_authorizer_is_in_its_span(opinion: Opinion, expected: str) -> None:
    ((span,), _) = await spans(http(access_review(), path="/authorize"), opinion=opinion)
    assert span.name == "POST /authorize"
    assert attributes(span)["noderestrict.decision"] == expected
    assert attributes(span)["k8s.node.name"] == "n1"
    assert attributes(span)["noderestrict.resource"] == "secrets"
    assert attributes(span)["noderestrict.operation"] == "get"


async def test_errors_have_their_status_and_those_of_the_server_are_errors() -> None:
    unknown = http(access_review(), path="/authorize")
    found, statuses = await spans(http(b"{"), unknown, opinion=None)
    assert statuses == [400, 503]
    assert [attributes(one)["http.response.status_code"] for one in found] == statuses
    assert [one.status.status_code for one in found] == [StatusCode.UNSET, StatusCode.ERROR]


@pytest.mark.parametrize(
    "traceparent",
    [NOT_SAMPLED, "", "00-zz", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "\x80"],
)
async def test_what_the_api_server_does_not_trace_has_no_span(traceparent: str) -> None:
    assert await spans(http(body()), traceparent=traceparent) == ([], [200])


async def test_what_has_no_trace_may_be_sampled_but_not_what_is_left_out_of_one() -> None:
    found, _ = await spans(http(body()), traceparent="", per_million=1_000_000)
    assert len(found) == 1
    found, _ = await spans(http(body()), traceparent=NOT_SAMPLED, per_million=1_000_000)
    assert found == []


async def test_names_that_a_client_chose_are_cut() -> None:
    user = {"username": f"system:node:{'n' * 5000}", "groups": ["system:nodes"]}
    ((span,), _) = await spans(http(body(userInfo=user)))
    assert len(attributes(span)["k8s.node.name"]) == 512


def test_opentelemetry_is_not_even_loaded_unless_it_is_asked_for() -> None:
    code = "import sys, noderestrict.cli.serve, noderestrict.serving.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "noderestrict.serving.app" in done.stdout
    assert "opentelemetry" not in done.stdout


def test_a_server_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("")
    done = subprocess.run(
        [
            sys.executable, "-m", "noderestrict", "serve", "--dev",
            "--tracing-endpoint", "http://127.0.0.1:1/v1/traces",
        ],
        capture_output=True, text=True, check=False,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "noderestrict[tracing]" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def collecting() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Serve a collector; yields its URL, and path and body of what it gets."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            got.append((self.path, data))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def posted(server: Server) -> int:
    """Post a review that is traced; return the status of the answer."""
    headers = {"Content-Type": "application/json", "traceparent": SAMPLED}
    connection = HTTPSConnection("127.0.0.1", server.port, context=server.context, timeout=SECONDS)
    connection.request("POST", "/validate", body(), headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def test_a_server_sends_its_spans_to_a_collector_before_it_ends(tmp_path: Path) -> None:
    with collecting() as (url, got), serving(tmp_path, "--tracing-endpoint", url) as server:
        assert posted(server) == 200
        assert server.stop() == 0
    ((path, data),) = got
    assert path == "/v1/traces"
    (sent,) = ExportTraceServiceRequest.FromString(data).resource_spans
    (span,) = sent.scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert {"service.name", "service.version"} <= {one.key for one in sent.resource.attributes}


def test_a_collector_that_is_away_costs_no_verdict_and_no_stop(tmp_path: Path) -> None:
    with serving(tmp_path, "--tracing-endpoint", "http://127.0.0.1:1/v1/traces") as server:
        assert posted(server) == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--tracing-endpoint", "localhost:4317"),
        ("--tracing-endpoint", "grpc://localhost"),
        ("--tracing-endpoint", "http://"),
        ("--tracing-sampling-rate-per-million", "1000001"),
        ("--tracing-sampling-rate-per-million", "-1"),
        ("--tracing-sampling-rate-per-million", "0.5"),
    ],
)
def test_a_bad_value_is_named(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--dev", f"{flag}={value}"])
    error = capsys.readouterr().err
    assert flag in error
    assert value in error

"""Our spans continue the traces of a real API server."""

import time
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from noderestrict.render.registration import webhook_configuration
from tests.e2e.control_plane import APIError
from tests.e2e.test_registration import (
    LEASES,
    Registered,
    configured,
    lease,
    server,
    until_refused,
)
from tests.e2e.test_registration import registered as registered  # a fixture
from tests.serving.test_traces import collecting

TRACING = """\
apiVersion: apiserver.config.k8s.io/v1
kind: TracingConfiguration
endpoint: 127.0.0.1:1
samplingRatePerMillion: 1000000
"""


def test_a_review_is_a_part_of_the_trace_of_the_request_that_it_is_about(
    registered: Registered, tmp_path: Path
) -> None:
    control_plane = registered.control_plane
    (tmp_path / "tracing.yaml").write_text(TRACING)
    flags = {"tracing-config-file": str(tmp_path / "tracing.yaml")}
    port = control_plane.start_another("traced", flags)
    plain, traced = control_plane.node("n1"), control_plane.node("n1", port)
    with (
        collecting() as (url, got),
        server(control_plane, registered.folder, "traces", "--tracing-endpoint", url) as serving,
        configured(registered, webhook_configuration(registered.client_config(serving))),
    ):
        # By an API server without traces, of which none are made.
        until_refused(plain)
        end = time.monotonic() + 60
        while True:
            try:
                with pytest.raises(APIError, match=r"leases\.noderestrict\.io"):
                    traced.create(f"{LEASES}?dryRun=All", lease("somebody-else"))
                break
            except (OSError, AssertionError, pytest.fail.Exception):
                # It does not answer yet, or has not seen the registration.
                assert time.monotonic() < end
                time.sleep(0.2)
        assert serving.stop() == 0
    sent = [
        span
        for _, data in got
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sent
    for span in sent:
        assert span.parent_span_id
        found = {one.key: one.value.string_value for one in span.attributes}
        assert found["k8s.node.name"] == "n1"
        assert found["noderestrict.decision"] == "denied"
        assert found["noderestrict.resource"] == "leases"

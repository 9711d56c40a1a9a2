"""OpenTelemetry: where spans go, and which are recorded. Needs ``noderestrict[tracing]``."""

from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Tracer

from noderestrict import __version__

#: Seconds that a collector has to take a batch.
_EXPORT_SECONDS = 5
_MILLION = 1_000_000


def tracing(
    endpoint: str, per_million: int = 0, exporter: SpanExporter | None = None
) -> tuple[Tracer, Callable[[], None]]:
    """Return a tracer, and what sends the last spans and ends it; that may take seconds.

    Spans are sent by a thread. Those that a collector does not take in time are dropped.

    Args:
        endpoint: URL that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.
        per_million: how many of the requests are recorded whose caller records no trace; of those
            with a trace, all that the caller records.
        exporter: takes the spans instead.
    """
    resource = Resource.create({SERVICE_NAME: "noderestrict", SERVICE_VERSION: __version__})
    sampler = ParentBased(root=TraceIdRatioBased(per_million / _MILLION))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    exporter = exporter or OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("noderestrict", __version__), provider.shutdown

"""A program with traces of its own that hands in a job: prints the id of its trace, of the job, and the result."""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from taskplatform.client import Client


def main() -> None:
    """Hand in one job within a span, and wait for it outside of it."""
    url, key, collector, task = sys.argv[1:]
    provider = TracerProvider(resource=Resource({"service.name": "caller"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=collector)))
    trace.set_tracer_provider(provider)
    with Client(url, key=key) as client:
        with trace.get_tracer("caller").start_as_current_span("order") as span:
            handle = client.submit(task)
        result = handle.result(60)
    provider.shutdown()
    print(f"{span.get_span_context().trace_id:032x}", handle.id, result)


if __name__ == "__main__":
    main()

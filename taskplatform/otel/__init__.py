"""Traces by OpenTelemetry; loaded only where they are wanted."""

from taskplatform.otel.tracer import new_tracer

__all__ = ["new_tracer"]

"""The HTTP service: intake, reads, console and metrics."""

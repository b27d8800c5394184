"""What can go wrong with a server that runs as a process of ours."""

from __future__ import annotations

from taskplatform.errors import TaskplatformError


class ServerError(TaskplatformError):
    """A server did not start, did not answer, or refused an administrative request."""


class ServerMissing(ServerError):
    """No program for this server is installed."""

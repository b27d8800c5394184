"""Starts the HTTP service, `python -m api`, or writes its OpenAPI document, `python -m api openapi`."""

from __future__ import annotations

import sys

import msgspec
import uvicorn

from api.app import openapi
from taskplatform import settings
from taskplatform.errors import SettingsError

KEEP_ALIVE_SECONDS = 30
DRAIN_SECONDS = 20
CONNECTIONS = 4000
"""Requests and idle connections of one process at once; beyond that it answers 503."""


def main() -> int:
    """Serve until a signal says stop; what was taken is stored and published first. Gives the exit status."""
    if sys.argv[1:] == ["openapi"]:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(openapi())).decode() + "\n")
        return 0
    try:
        loaded = settings.load()
        loaded.signing_secrets()
    except SettingsError as error:
        sys.stderr.write(f"api: {error}\n")
        return 2
    uvicorn.run(
        "api.app:create",
        factory=True,
        host=loaded.api_host,
        port=loaded.api_port,
        workers=loaded.api_processes,
        loop="uvloop",
        http="api.protocol:Protocol",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        limit_concurrency=CONNECTIONS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

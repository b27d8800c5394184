"""Starts the HTTP service, `python -m api`, or writes its OpenAPI document, `python -m api openapi`."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from time import sleep

import msgspec
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from api.app import openapi
from taskplatform import settings
from taskplatform.errors import SettingsError
from taskplatform.settings import Settings

KEEP_ALIVE_SECONDS = 30
FINISH_SECONDS = 20
"""How long requests that are under way have when the server stops."""
CONNECTIONS = 4000
"""Requests and idle connections of one process at once; beyond that it answers 503."""
_POLL_SECONDS = 0.1


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
    _serve(loaded)
    return 0


def _serve(loaded: Settings) -> None:
    config = uvicorn.Config(
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
        timeout_graceful_shutdown=FINISH_SECONDS,
        limit_concurrency=CONNECTIONS,
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        if loaded.api_processes > 1:
            _Processes(config, [config.bind_socket()]).run()
            return
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class _Processes(Multiprocess):
    def join_all(self) -> None:
        # Each child listens by a descriptor of its own. While the parent kept one, the system went on to take
        # connections after the last child had stopped to, and nobody would have answered them.
        for one in self.sockets:
            one.close()
        # A second signal is for those who take their time: they are told, too.
        while any(one.process.is_alive() for one in self.processes):
            if {signal.SIGINT, signal.SIGTERM} & set(self.signal_queue):
                self.signal_queue.clear()
                self.terminate_all()
            sleep(_POLL_SECONDS)
        super().join_all()


if __name__ == "__main__":
    sys.exit(main())

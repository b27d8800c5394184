"""One etcd server on loopback, in which Patroni keeps who is the primary."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from taskplatform.servers.configuration import shared_variables
from taskplatform.servers.errors import ServerError, ServerMissing
from taskplatform.servers.ports import free_ports
from taskplatform.servers.process import Command, Process

_ANSWER_SECONDS = 2.0
_HTTP_OK = 200


class Etcd:
    """A cluster of one member that keeps its data in `data_dir`. Raises ServerMissing when no etcd is installed."""

    def __init__(self, data_dir: Path) -> None:
        program = shutil.which("etcd")
        if program is None:
            raise ServerMissing("no etcd is installed")
        self.port, peer_port = free_ports(2)
        self._data_dir = data_dir.absolute()
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peer_port}"
        own = {
            "ETCD_NAME": "etcd-1",
            "ETCD_DATA_DIR": str(self._data_dir / "data"),
            "ETCD_LISTEN_CLIENT_URLS": client,
            "ETCD_ADVERTISE_CLIENT_URLS": client,
            "ETCD_LISTEN_PEER_URLS": peer,
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
            "ETCD_INITIAL_CLUSTER": f"etcd-1={peer}",
        }
        self.process = Process(
            Command(
                name=f"etcd on port {self.port}",
                argv=(program,),
                log=self._data_dir / "server.log",
                env={**shared_variables("etcd/etcd.env"), **own},
            )
        )

    def start(self) -> None:
        """Start it on the data that is there, and return when it answers; raise ServerError."""
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.process.start(self._answers)

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def kill(self) -> None:
        """Kill it at once."""
        self.process.kill()

    def delete(self, key: str) -> None:
        """Delete a key; raise ServerError. One that does not exist is no error."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS)
        try:
            # Its JSON gateway takes bytes in base 64: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/.
            body = json.dumps({"key": base64.b64encode(key.encode()).decode()})
            connection.request("POST", "/v3/kv/deleterange", body)
            status = connection.getresponse().status
        except (OSError, HTTPException) as error:
            raise ServerError(f"etcd does not answer: {error}") from error
        finally:
            connection.close()
        if status != _HTTP_OK:
            raise ServerError(f"etcd deletes no key: HTTP {status}")

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS)
        with contextlib.suppress(OSError, HTTPException), contextlib.closing(connection):
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        return False

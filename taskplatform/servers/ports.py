"""Loopback ports that nobody listens on and that no other process of this user was promised."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
import tempfile
from pathlib import Path

from taskplatform.servers.errors import ServerError

# Below the range from which Linux takes the ports of outgoing connections: a server that is down for a moment must
# find its port free when it comes back.
_FIRST, _LAST = 15_000, 32_000


def free_ports(count: int) -> list[int]:
    """Return `count` free TCP ports of 127.0.0.1; none of them is handed out again while this process lives.

    Raises ServerError when there are not enough.
    """
    # The locks belong to this descriptor, which stays open on purpose: the system lets go of it when the process ends.
    promises = _promises()
    found: list[int] = []
    for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
        if len(found) == count:
            break
        if _promise(promises, port) and _is_free(port):
            found.append(port)
    if len(found) < count:
        raise ServerError(f"only {len(found)} of {count} wanted ports are free on 127.0.0.1")
    return found


def hold_port(port: int) -> int | None:
    """Have this port of 127.0.0.1 promised to us while the descriptor is open that this gives; None if it is taken."""
    promises = _promises()
    if _promise(promises, port) and _is_free(port):
        return promises
    os.close(promises)
    return None


def listens(port: int) -> bool:
    """Tell whether something accepts TCP connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _promises() -> int:
    place = Path(tempfile.gettempdir()) / f"taskplatform-ports-{os.getuid()}"
    return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _promise(promises: int, port: int) -> bool:
    one_byte = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, port, 1, 0)
    try:
        fcntl.fcntl(promises, fcntl.F_OFD_SETLK, one_byte)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

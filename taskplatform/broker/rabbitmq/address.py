"""Where a RabbitMQ node is and who we are to it, read from a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from taskplatform.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One node; what it prints as holds no password."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `amqp[s]://user:password@host:port/vhost` as Celery does: `/` and `//` both name the vhost `/`.

        Raises SettingsError.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise SettingsError(f"broker_url: {error}") from None
        if parts.scheme not in ("amqp", "amqps"):
            raise SettingsError(f"broker_url: expected amqp:// or amqps://, not {parts.scheme}://")
        if parts.query or parts.fragment:
            raise SettingsError("broker_url: parameters after '?' or '#' are not known")
        tls = parts.scheme == "amqps"
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port or (5671 if tls else 5672),
            user=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            vhost=unquote(parts.path.removeprefix("/")) or "/",
            tls=tls,
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}{'' if self.vhost == '/' else '/' + self.vhost}"

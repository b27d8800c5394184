"""Flower as a part of the platform: let in with an API key, unable to change anything: `python -m workers.flower`."""

from __future__ import annotations

import hashlib
import hmac
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any
from urllib.parse import urlsplit

import tornado.web
from flower import urls
from flower.app import Flower
from flower.options import options
from flower.views import BaseHandler, auth, monitor
from flower.views.tasks import TasksDataTable
from tornado.ioloop import IOLoop

from taskplatform.access import Keys
from taskplatform.auth import Scope
from taskplatform.broker.contract import Broker
from taskplatform.errors import BrokerUnavailable, NotAllowed, NotAuthenticated, SettingsError, StoreUnavailable
from taskplatform.settings import Settings, load
from taskplatform.telemetry import configure_logging, logger
from taskplatform.topology import queues
from taskplatform.wiring import new_broker, new_store
from workers.app import new_app

# They have no types.
_Flower: Any = Flower
_BaseHandler: Any = BaseHandler

_COOKIE = "flower_session"
_SESSION_DAYS = 0.5
_MOST_TASKS = 10_000
_FORGET_SECONDS = 300
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    # With "no-referrer" a browser would send a form of ours with the origin "null".
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# What changes nothing although it is asked for with POST.
_READING_POSTS = (TasksDataTable,)

_log = logger(__name__)


class Guard:
    """Goes before every handler: nobody passes without a key that may look, and nothing is changed."""

    application: Any
    request: Any
    current_user: Any

    async def prepare(self: Any) -> None:
        """Let the request pass, or end it."""
        if self.request.method not in ("GET", "HEAD") and not isinstance(self, _READING_POSTS):
            raise tornado.web.HTTPError(403, "Flower shows, it changes nothing: jobs are changed through the platform")
        try:
            self.current_user = await self.application.caller(self)
        except NotAuthenticated:
            self._send_away()
        except NotAllowed as error:
            raise tornado.web.HTTPError(403, str(error)) from None
        except StoreUnavailable:
            raise tornado.web.HTTPError(503, "the keys cannot be looked up, Postgres is away") from None

    def _send_away(self: Any) -> None:
        if "text/html" in self.request.headers.get("Accept", "") and self.request.method == "GET":
            self.redirect(self.application.login_page(self.request.uri))
            return
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Bearer realm="taskplatform"')
        self.finish("send `Authorization: Bearer tp_…`, or log in\n")

    def set_default_headers(self: Any) -> None:
        """Add the headers of every answer."""
        super().set_default_headers()  # type: ignore[misc]  # Of the handler that this stands before.
        for name, value in _HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")

    def get_broker(self: Any) -> Any:
        """Give who knows the queues' depths: Flower's own would need RabbitMQ's management interface."""
        return self.application.depths


class Public:
    """Goes before what says nothing of the platform: Flower's own styles and scripts, for the log-in page too."""

    def set_default_headers(self: Any) -> None:
        """Add the headers of every answer; a browser may keep these files."""
        super().set_default_headers()  # type: ignore[misc]  # Of the handler that this stands before.
        for name, value in _HEADERS.items():
            self.set_header(name, value)


class Login(_BaseHandler):
    """The page on which an API key is exchanged for a session."""

    def set_default_headers(self) -> None:
        """Add the headers of every answer."""
        for name, value in _HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """Take the form from this page alone."""
        origin = self.request.headers.get("Origin")
        if origin and urlsplit(origin).netloc != self.request.host:
            raise tornado.web.HTTPError(403, "a form of another site")

    def get(self) -> None:
        """Show the form."""
        self._show("")

    async def post(self) -> None:
        """Begin a session, or show the form again."""
        sent = f"Bearer {self.get_argument('key', '')}".encode("ascii", "replace")
        try:
            key = await self.application.keys.admit(sent, Scope.WATCH)
        except NotAuthenticated:
            self.set_status(401)
            self._show("This is no living API key.")
        except NotAllowed as error:
            self.set_status(403)
            self._show(f"{error}.")
        except StoreUnavailable:
            self.set_status(503)
            self._show("Keys cannot be looked up: Postgres is away.")
        else:
            secure = "https" in (self.request.protocol, self.request.headers.get("X-Forwarded-Proto"))
            self.set_secure_cookie(
                _COOKIE, key.id, expires_days=_SESSION_DAYS, secure=secure, path=self.application.root
            )
            self.redirect(auth.get_next_url(self))

    def _show(self, trouble: str) -> None:
        said = f'<p role="alert" class="text-danger">{escape(trouble)}</p>' if trouble else ""
        self.finish(_FORM.format(css=escape(self.static_url("css/bootstrap.min.css")), trouble=said))


class Logout(_BaseHandler):
    """Ends the session."""

    def get(self) -> None:
        """Forget the session and show the form."""
        self.clear_cookie(_COOKIE, path=self.application.root)
        self.redirect(self.application.login_page(self.application.root))


class Depths:
    """The depth of every queue of the platform, as Flower asks its broker for them."""

    def __init__(self, broker: Broker, pools: Sequence[str]) -> None:
        self._broker = broker
        self._names = [queue.name for queue in queues(pools)]

    async def queues(self, names: object) -> list[dict[str, Any]]:
        """Count what is ready in each; nothing while the broker is away."""
        try:
            depths = await self._broker.depths(self._names)
        except BrokerUnavailable as error:
            _log.warning("the queues cannot be counted", error=str(error))
            return []
        return [{"name": name, "messages": depth, "messages_ready": depth} for name, depth in sorted(depths.items())]


class PlatformFlower(_Flower):
    """Flower over a platform's broker and keys."""

    def __init__(self, settings: Settings, own: Mapping[str, Any]) -> None:
        self.root = f"/{settings.flower_prefix}/"
        super().__init__(capp=new_app(settings), options=options, **own)
        self._store = new_store(settings)
        self._broker = new_broker(settings)
        self.keys = Keys(self._store)
        self.depths = Depths(self._broker, settings.pools)

    def get_handler_delegate(self, request: Any, target_class: Any, *rest: Any, **options: Any) -> Any:
        """Put the guard before whatever handler it is, but for those that say nothing."""
        return super().get_handler_delegate(request, _guarded(target_class), *rest, **options)

    async def caller(self, handler: Any) -> str:
        """Give the id of the key that a request came with. Raises NotAuthenticated, NotAllowed, StoreUnavailable."""
        sent = handler.request.headers.get("Authorization")
        if sent is not None:
            return (await self.keys.admit(sent.encode("latin-1"), Scope.WATCH)).id
        session = handler.get_signed_cookie(_COOKIE, max_age_days=_SESSION_DAYS)
        if session is None:
            raise NotAuthenticated("no API key was sent")
        return (await self.keys.admit_again(session.decode(), Scope.WATCH)).id

    def login_page(self, then: str) -> str:
        """Give where to log in, and to go on afterwards."""
        return f"{self.root}login?{urls_encoded(then)}"

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises SettingsError when the port is taken."""
        loop = IOLoop.current()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.add_callback_from_signal(loop.stop))
        try:
            self.start_http_server()
        except OSError as error:
            raise SettingsError(f"Flower's port {self.options.port} cannot be used: {error.strerror}") from None
        loop.add_callback(self._store.open)
        loop.add_callback(self._broker.start)
        self.start()
        self.stop()


def urls_encoded(then: str) -> str:
    """Write where to go on as a query."""
    return tornado.httputil.url_concat("", [("next", then)]).lstrip("?")


def main() -> int:
    """Run Flower with settings from the environment; gives the exit status."""
    try:
        settings = load()
        secret = settings.signing_secrets()[0]
        configure_logging(settings.log_level, settings.log_format, "flower")
        logging.getLogger("tornado.access").setLevel(logging.ERROR)
        PlatformFlower(settings, _own(settings, secret)).run()
    except SettingsError as error:
        sys.stderr.write(f"taskplatform flower: {error}\n")
        return 2
    return 0


def _own(settings: Settings, secret: bytes) -> dict[str, Any]:
    prefix = settings.flower_prefix
    chosen = {
        "address": settings.flower_host,
        "port": settings.flower_port,
        "url_prefix": prefix,
        "read_only": True,
        "max_tasks": _MOST_TASKS,
        "purge_offline_workers": _FORGET_SECONDS,
        # So that it shows the way out, and wants its token with what a browser posts.
        "auth": "platform",
    }
    for name, value in chosen.items():
        setattr(options, name, value)
    # The same in every instance, and after a restart.
    cookie_secret = hmac.new(secret, b"sessions of Flower", hashlib.sha256).hexdigest()
    pages = {name: f"/{prefix}{urls.settings[name]}" for name in ("login_url", "static_url_prefix")}
    return {**urls.settings, **pages, "cookie_secret": cookie_secret}


@cache
def _guarded(handler: Any) -> Any:
    match handler:
        case monitor.Healthcheck:
            return handler
        case auth.LoginHandler:
            return Login
        case auth.LogoutHandler:
            return Logout
        case _:
            public = issubclass(handler, tornado.web.StaticFileHandler)
            return type(handler.__name__, (Public if public else Guard, handler), {})


_FORM = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · Flower</title>
<link rel="stylesheet" href="{css}">
</head>
<body class="bg-body-tertiary">
<main class="container py-5" style="max-width: 26rem">
<h1 class="h4">taskplatform</h1>
<p>Flower shows workers and their latest jobs. Log in with an API key of the scope <code>platform:read</code>.</p>
<form method="post">
<label for="key" class="form-label">API key</label>
<input id="key" name="key" type="password" class="form-control mb-3" autocomplete="current-password" required autofocus>
{trouble}
<button type="submit" class="btn btn-primary">Log in</button>
</form>
</main>
</body>
</html>
"""


if __name__ == "__main__":
    sys.exit(main())

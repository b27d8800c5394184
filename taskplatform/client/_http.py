"""Our requests and answers in the terms of the HTTP library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from threading import Lock
from typing import Any

import httpx2

from taskplatform import freshness
from taskplatform.client._base import Answer, NoAnswer, Request
from taskplatform.errors import InvalidInput, SettingsError

LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=15.0)
_CONNECT_SECONDS = 5.0
_KEY = re.compile(r"[!-~]+")


class Memory:
    """How far a client has written or seen, so that no replica shows it less; threads may share it."""

    def __init__(self) -> None:
        self._seen: freshness.Seen = {}
        self._lock = Lock()

    def headers(self) -> dict[str, str]:
        """Give the header that says so."""
        return {freshness.HEADER: freshness.write(self._seen)} if self._seen else {}

    def note(self, answer: Answer) -> Answer:
        """Remember what an answer may have shown, and pass it on."""
        text = answer.headers.get(freshness.HEADER.lower())
        if text is not None:
            with self._lock:
                try:
                    self._seen = freshness.joined(self._seen, freshness.read(text))
                except InvalidInput:
                    # Who says nothing may have seen anything: then no replica answers.
                    self._seen = {}
        return answer


def headers(key: str | None) -> dict[str, str]:
    """Give the headers of every request. Raises SettingsError for a key that no header can carry."""
    common = {"Accept": "application/json", "User-Agent": "taskplatform-python"}
    if key is None:
        return common
    if _KEY.fullmatch(key) is None:
        # Without the key itself: it may be a real one with a line break behind it.
        raise SettingsError("the API key is empty, or holds blanks, line breaks or letters that no API key has")
    return {**common, "Authorization": f"Bearer {key}"}


def parts(request: Request, memory: Memory, more: Mapping[str, str]) -> dict[str, Any]:
    """Give a request as the arguments of the library's `request`, with `more` headers."""
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params),
        "headers": {**request.headers, **memory.headers(), **more},
        "content": request.body,
        "timeout": httpx2.Timeout(request.timeout_seconds, connect=_CONNECT_SECONDS),
    }


def answer(response: httpx2.Response) -> Answer:
    """Read a whole response."""
    return Answer(status=response.status_code, headers=dict(response.headers), body=response.content)


def no_answer(error: httpx2.RequestError, url: httpx2.URL) -> NoAnswer:
    """Say in one line why `url` gave no answer. Raises SettingsError when no repetition can change that."""
    line = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)):
        raise SettingsError(f"the address {url} or the key of the API is unusable: {line}") from None
    return NoAnswer(why=f"no answer from {url}: {line}")

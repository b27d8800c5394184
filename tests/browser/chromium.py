"""A headless Chromium that tests look at pages with, driven by the WebDriver protocol of Debian's chromedriver."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskplatform.servers import free_ports
from tests.fixtures.waiting import eventually

# Without the last ones it looks for its maker's hosts at every start.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--window-size=1200,700",
)
_START_SECONDS = 60.0
_PAGE_SECONDS = 30.0
_LOOK_SECONDS = 0.2


class Page:
    """One window of the browser."""

    def __init__(self, driver: httpx2.Client, session: str) -> None:
        self._driver = driver
        self._session = f"/session/{session}"

    @property
    def address(self) -> str:
        """Where it is."""
        return str(self._ask("GET", "/url"))

    def open(self, url: str) -> None:
        """Go there, and return when the page is loaded."""
        self._ask("POST", "/url", {"url": url})

    def text(self) -> str:
        """Give what a reader sees."""
        return str(self.run("return document.body.innerText"))

    def shows(self, *texts: str) -> None:
        """Wait until all of this can be read."""
        deadline = time.monotonic() + _PAGE_SECONDS
        while missing := [text for text in texts if text not in self.text()]:
            assert time.monotonic() < deadline, f"{missing} cannot be read in:\n{self.text()}"
            time.sleep(_LOOK_SECONDS)

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self._ask("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Click on something."""
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def run(self, script: str) -> Any:
        """Run a script in the page, and give what it returns or resolves to."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def picture(self) -> bytes:
        """Give what is seen as PNG."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def _find(self, selector: str) -> str:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._driver.request(method, self._session + path, json=body)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Give a page of a fresh browser whose profile and log are in `folder`."""
    driver = shutil.which("chromedriver")
    if driver is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromedriver is not installed; `make servers` installs it")
        pytest.skip("chromedriver is not installed; `make servers` installs it")
    port = free_ports(1)[0]
    with (folder / "chromedriver.log").open("wb") as log:
        process = subprocess.Popen([driver, f"--port={port}"], stdout=log, stderr=log)
    link = httpx2.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx2.HTTPTransport(), timeout=_START_SECONDS)
    try:
        eventually(lambda: _answers(link), within_seconds=_START_SECONDS)
        wanted = {"args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        always = {"goog:chromeOptions": wanted, "pageLoadStrategy": "normal"}
        session = link.post("/session", json={"capabilities": {"alwaysMatch": always}}).json()["value"]["sessionId"]
        try:
            yield Page(link, session)
        finally:
            # The driver leaves the browser running when it ends itself.
            link.delete(f"/session/{session}")
    finally:
        link.close()
        process.terminate()
        process.wait()


def _answers(link: httpx2.Client) -> bool:
    try:
        return bool(link.get("/status").json()["value"]["ready"])
    except httpx2.RequestError:
        return False

"""Pytest plugin: a real browser without a window, driven through its DevTools protocol.

`browser` is the program, for tests that start it themselves; `web_page` is one page of it that stays open.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ANNOUNCEMENT = "DevTools listening on "
_START_SEC = 120.0


class WebPage:
    """One page of a browser of its own, 1600 x 1100 pixels."""

    def __init__(self, browser: str, folder: Path) -> None:
        # Whoever waits for a line of a browser that never starts waits for good; the log ends with the process.
        self._log = folder / "browser.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    browser,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-background-networking",
                    "--remote-debugging-port=0",
                    f"--user-data-dir={folder / 'profile'}",
                    "--window-size=1600,1100",
                    "about:blank",
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._numbers = itertools.count(1)
        self._session: str | None = None
        with ExitStack() as started:
            started.callback(self._end)
            self._socket = started.enter_context(connect(self._address(), max_size=None, open_timeout=_START_SEC))
            targets = self._call("Target.getTargets")["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            self._started = started.pop_all()

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    @property
    def text(self) -> str:
        """What a reader of the page sees, without what is hidden; nothing while one page gives way to the next."""
        answer = self._ask("Runtime.evaluate", expression="document.body ? document.body.innerText : ''")
        return str(answer.get("result", {}).get("result", {}).get("value", ""))

    def shows(self, *texts: str, limit: float = 240.0) -> str:
        """The text of the page, once it holds all of these. Fails with what is missing when the time is up."""
        pause, end = threading.Event(), time.monotonic() + limit
        while True:
            seen = self.text
            missing = [text for text in texts if text not in seen]
            if not missing:
                return seen
            assert time.monotonic() < end, f"The page does not show {missing}, but:\n{seen[-3000:]}"
            pause.wait(0.3)

    def close(self) -> None:
        self._started.close()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(_START_SEC)

    def _address(self) -> str:
        pause, end = threading.Event(), time.monotonic() + _START_SEC
        while time.monotonic() < end and self._process.poll() is None:
            for line in self._log.read_text(errors="replace").splitlines():
                if line.startswith(_ANNOUNCEMENT):
                    return line.removeprefix(_ANNOUNCEMENT).strip()
            pause.wait(0.1)
        raise AssertionError(f"The browser did not start: {self._log.read_text(errors='replace')[-2000:]}")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        answer = self._ask(method, **parameters)
        assert "error" not in answer, answer["error"]
        return dict(answer["result"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer, past all events."""
        number = next(self._numbers)
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        self._socket.send(json.dumps(command))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=_START_SEC))
            if answer.get("id") == number:
                return answer


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


@pytest.fixture
def web_page(browser: str, tmp_path: Path) -> Iterator[WebPage]:
    with closing(WebPage(browser, tmp_path)) as page:
        yield page

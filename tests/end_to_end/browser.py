"""A headless Chromium steered by the DevTools protocol over a pair of pipes: no port, no driver."""

import base64
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
TROUBLE = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}


def find_browser() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Tab:
    """One page, what it has asked for and what its console has said."""

    browser: "Browser"
    session: str
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol on this page."""
        return self.browser.call(method, self, **parameters)

    def show(self, scheme: str, width: int) -> None:
        """Prefer light or dark, and be so many pixels wide."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def open(self, path: Path) -> None:
        """Open a file, and wait until everything that it asks for has come or failed."""
        self.requests, self.console = [], []
        self.browser.loaded = False
        self.call("Page.navigate", url=path.as_uri())
        while not self.browser.loaded:
            self.browser.handle(self.browser.read())

    def evaluate(self, code: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self) -> NDArray[np.uint8]:
        """Return the whole page as pixels, [height, width, 3]."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"])))
        return np.asarray(image.convert("RGB"))


class Browser:
    """The process, and the messages to and from it."""

    def __init__(self, to: int, come: int) -> None:
        self._to, self._from = to, come
        self._number, self._rest = 0, b""
        self._tab: Tab | None = None
        self.loaded = False

    def tab(self) -> Tab:
        """Open a page and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._tab.call(f"{domain}.enable")
        return self._tab

    def call(self, method: str, tab: Tab | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if tab is not None:
            message["sessionId"] = tab.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self._number:
            self.handle(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def read(self) -> dict[str, Any]:
        """Wait for the next message."""
        while b"\0" not in self._rest:
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read

    def handle(self, event: dict[str, Any]) -> None:
        """Note what a page does."""
        method, values = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif self._tab is not None and method == "Network.requestWillBeSent":
            self._tab.requests.append(values["request"]["url"])
        elif self._tab is not None and method in TROUBLE:
            self._tab.console.append(json.dumps(values))


@contextmanager
def started(program: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with a new profile, and end it."""
    (to_read, to), (come, to_write) = os.pipe(), os.pipe()
    # The protocol's pipes are the descriptors 3 and 4 of the browser.
    shell = f'exec "$@" 3<&{to_read} 4>&{to_write}'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(to_read, to_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(to, come)
    finally:
        os.close(to)  # which ends it
        os.close(come)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""Headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol): no driver, no package."""

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

SIZE = (1280, 800)
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # the tests run as root in containers, and open nothing but our own pages
    "--remote-debugging-pipe",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but this machine
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--use-angle=swiftshader",
    "--hide-scrollbars",
)
#: Becomes the browser, whose debugging pipe is at file descriptors 3 and 4.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
for number, end in enumerate(ends, start=3):
    os.dup2(end, number)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class PageError(AssertionError):
    """The page threw, or the browser refused a command."""


class Browser:
    """One page. ``errors`` collects uncaught exceptions and what the page logs as errors."""

    def __init__(self, profile: Path, size: tuple[int, int] = SIZE) -> None:
        self.errors: list[str] = []
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        options = [*_OPTIONS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        pipe = (read_commands, write_answers)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *(str(one) for one in pipe), "chromium", *options],
            pass_fds=pipe,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._size = size
        try:
            self.new_page()
        except BaseException:
            self.close()
            raise

    def new_page(self) -> None:
        """Close every page and open an empty one: nothing is left of what was shown, in memory neither."""
        size, self._session = self._size, None
        old = [one["targetId"] for one in self.command("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        target = self.command("Target.createTarget", url="about:blank")
        for one in old:
            self.command("Target.closeTarget", targetId=one)
        attached = self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = str(attached["sessionId"])
        self.errors.clear()
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")
        self.command(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )

    def command(self, method: str, timeout_s: float = 120.0, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline_s = time.monotonic() + timeout_s
        while True:
            answer = self._next(deadline_s, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self, deadline_s: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._read], [], [], left_s)[0]:
                raise PageError(f"the browser does not answer {what}")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise PageError("the browser is gone")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("sessionId") == self._session:
            self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, parameters: Mapping[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in parameters["args"]))

    def open(self, address: str) -> None:
        self.command("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of the page's (a promise is awaited)."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(str(details.get("exception", {}).get("description", details["text"])))
        return answer["result"].get("value")

    def wait(self, expression: str, what: str, timeout_s: float = 60.0) -> Any:
        """The expression's first true value."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            value = self.evaluate(expression)
            if value:
                return value
            time.sleep(0.2)
        raise PageError(f"waited {timeout_s} s for {what}")

    def click(self, x: float, y: float, *, times: int = 1) -> None:
        """Click with the left button at a point of the page, in CSS pixels."""
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)

    def screenshot(self) -> bytes:
        """The page as PNG."""
        for _ in range(5):
            try:
                return base64.b64decode(self.command("Page.captureScreenshot", timeout_s=30.0, format="png")["data"])
            except PageError:  # now and then Chromium makes no frame of a page that nobody has touched
                self.command("Page.bringToFront")
        raise PageError("the browser takes no picture of the page")

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""A headless Chromium, steered over a pipe by the DevTools protocol: nothing to install but it.

    python -m tests.api.browser URL FILE.png WIDTH HEIGHT light|dark SECONDS

takes a screenshot of a running agent's page, so many seconds after it was opened.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium")
READING, WRITING = 3, 4
"""The descriptors that --remote-debugging-pipe reads from and writes to."""


class Browser:
    """One page in one browser; calls block, so ask from a thread when the server is in the loop."""

    def __init__(self) -> None:
        self._count = 0
        self._rest = b""
        self._session: str | None = None

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        script = f'exec {READING}<&{reads} {WRITING}>&{writes}; exec "$@"'
        flags = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        )
        profile = f"--user-data-dir={self._profile.name}"
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(CHROMIUM), *flags, profile, "about:blank"],
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._profile.name},
        )
        os.close(reads)
        os.close(writes)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            octets = os.read(self._from, 1 << 20)
            if not octets:
                raise RuntimeError("the browser has ended")
            self._rest += octets
        one, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

    def show(self, url: str, width: int = 1180, height: int = 900, scheme: str = "light") -> None:
        """Open a page as a screen of that size would."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Run JavaScript in the page and return its value."""
        return self.call("Runtime.evaluate", expression=script)["result"].get("value")

    def text(self) -> str:
        """Return what a reader reads, blanks folded."""
        return re.sub(r"\s+", " ", str(self.run("document.body.innerText")))

    def until(self, words: str, seconds: float = 20.0) -> float:
        """Wait until the page says `words`; return how many seconds that took."""
        began = time.monotonic()
        while words not in (text := self.text()):
            if time.monotonic() > began + seconds:
                raise TimeoutError(f"{words!r} is not in: {text}")
            time.sleep(0.02)
        return time.monotonic() - began

    def picture(self) -> bytes:
        """Return what is seen as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


if __name__ == "__main__":
    url, file, width, height, scheme, seconds = sys.argv[1:]
    with Browser() as browser:
        browser.show(url, int(width), int(height), scheme)
        time.sleep(float(seconds))
        Path(file).write_bytes(browser.picture())

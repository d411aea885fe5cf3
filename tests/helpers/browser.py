"""A headless Chromium, controlled over pipes; the text of shadow trees is read, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")

WALK = """
(() => {
  const texts = [], images = [];
  (function walk(node) {
    if (node.nodeType === 3 && node.data.trim()) texts.push(node.data.trim());
    if (node.tagName === "IMG" && node.naturalWidth > 0) images.push(node.src);
    if (["STYLE", "SCRIPT", "TEMPLATE"].includes(node.tagName)) return;
    node.childNodes.forEach(walk);
    if (node.shadowRoot) walk(node.shadowRoot);
  })(document.body);
  return {text: texts.join(" "), images};
})()
"""


class Page:
    """A tab, controlled by the DevTools protocol."""

    def __init__(self, to: int, back: int, size: tuple[int, int]) -> None:
        self.to, self.back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb")
        self.n = 0
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def call(self, method: str, **params: Any) -> Any:
        """Send a command and return its result; events in between are dropped."""
        self.n += 1
        message: dict[str, Any] = {"id": self.n, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self.n:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> bytes:
        read = bytearray()
        while (byte := self.back.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            read += byte
        return bytes(read)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return done["result"].get("value")

    def contents(self) -> dict[str, Any]:
        """The current text and the loaded images; both are empty while a page is loading."""
        contents: dict[str, Any] = self.value(WALK) or {"text": "", "images": []}
        return contents

    def wait_for(self, *texts: str, n_images: int = 0, patience_s: float = 60.0) -> dict[str, Any]:
        """The contents, once these texts and at least `n_images` images are there."""
        deadline = time.monotonic() + patience_s
        while True:
            contents = self.contents()
            missing = [text for text in texts if text not in contents["text"]]
            if not missing and len(contents["images"]) >= n_images:
                return contents
            assert time.monotonic() < deadline, (missing, contents)
            time.sleep(0.5)


@contextmanager
def browsing(profile: Path, size: tuple[int, int] = (1400, 1000)) -> Iterator[Page]:
    """A page of a browser, which is closed at the end of the context."""
    (child_in, to), (back, child_out) = os.pipe(), os.pipe()
    options = "--headless --no-sandbox --disable-gpu --remote-debugging-pipe"
    command = f'exec "$0" {options} --user-data-dir="$1" 3<&{child_in} 4>&{child_out}'
    browser = subprocess.Popen(
        ["bash", "-c", command, str(CHROMIUM), str(profile)],
        pass_fds=(child_in, child_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(child_in)
    os.close(child_out)
    page = Page(to, back, size)
    try:
        yield page
    finally:
        browser.terminate()
        browser.wait(timeout=20)
        page.to.close()
        page.back.close()

"""Start a program that serves pages on this machine, and request documents from it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any


def serving(*command: str) -> Iterator[str]:
    """The address of a program that takes `--host` and `--port`, run at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def ask(url: str, **body: Any) -> Any:
    """A JSON document, once the server runs and has read its files; waits at most 90 s."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    for _ in range(180):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                document = json.load(answer)
            if document:
                return document
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise TimeoutError(url)

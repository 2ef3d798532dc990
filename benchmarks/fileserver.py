"""A web server that has one file, and costs as little as it can: the kernel sends the bytes."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_BLOCK = 256 * 1024


@contextlib.contextmanager
def serving(path: Path, rate: float | None = None) -> Iterator[str]:
    """The file's address on the loopback, for a while.

    Args:
        rate: bytes per second on each connection.
    """

    class Handler(_Handler):
        file = path
        limit = rate

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{path.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers every GET with the file, or a range of it (RFC 9110, section 14)."""

    protocol_version = "HTTP/1.1"
    file: Path
    limit: float | None

    def do_GET(self) -> None:
        size = self.file.stat().st_size
        asked = _RANGE.match(self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]), size - 1) if asked and asked[2] else size - 1
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        with self.file.open("rb") as file, contextlib.suppress(ConnectionError):
            if self.limit is None:
                self.connection.sendfile(file, first, last - first + 1)
                return
            start = time.monotonic()
            for position in range(first, last + 1, _BLOCK):
                self.connection.sendfile(file, position, min(_BLOCK, last + 1 - position))
                ahead = (position + _BLOCK - first) / self.limit - (time.monotonic() - start)
                time.sleep(max(0.0, ahead))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

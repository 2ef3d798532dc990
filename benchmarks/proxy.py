"""A proxy that counts what a client sends to a registry. It copies bytes, and knows of them where a request begins."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_BLOCK = 1024 * 1024
_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) /v2/")


@dataclass
class Counter:
    """Bytes from clients so far, requests' lines and headers included, their requests, and where to send them."""

    host: str
    sent: int = 0
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: memoryview) -> None:
        """More was sent. Nobody sends a request before the last one was answered, so each begins with a read."""
        with self._lock:
            self.sent += len(data)
            self.requests += _REQUEST.match(data) is not None


@contextlib.contextmanager
def counting(host: str) -> Iterator[Counter]:
    """A proxy before the registry at `host`. It competes for the processor: never in a run that is timed."""
    name, _, port = host.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    counter = Counter(host=f"127.0.0.1:{listener.getsockname()[1]}")
    thread = threading.Thread(target=_accept, args=(listener, (name, int(port)), counter), daemon=True)
    thread.start()
    try:
        yield counter
    finally:
        # Closing alone does not wake the thread that waits in accept().
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _accept(listener: socket.socket, target: tuple[str, int], counter: Counter) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        try:
            server = socket.create_connection(target)
        except OSError:
            client.close()
            continue
        pair = _Pair(client, server)
        for source, sink, count in ((client, server, counter.add), (server, client, None)):
            threading.Thread(target=pair.copy, args=(source, sink, count), daemon=True).start()


class _Pair:
    """Two connections that end together."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._sockets = (client, server)
        self._lock = threading.Lock()
        self._ended = 0

    def copy(self, source: socket.socket, sink: socket.socket, count: Callable[[memoryview], None] | None) -> None:
        """Everything from one to the other, until it ends or breaks."""
        view = memoryview(bytearray(_BLOCK))
        with contextlib.suppress(OSError):
            while size := source.recv_into(view):
                # Counted before it arrives: whoever reads the number after an answer has all of it.
                if count is not None:
                    count(view[:size])
                sink.sendall(view[:size])
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._ended += 1
            if self._ended == len(self._sockets):
                for connection in self._sockets:
                    connection.close()

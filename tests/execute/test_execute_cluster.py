"""Addresses that lead to no scheduler, and what Dask says of tasks, in words with a way out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import distributed
import pytest

from layerbuild.errors import ExecutorError, UsageError
from layerbuild.execute import cluster
from layerbuild.execute.job import Sealed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers late here."""
    monkeypatch.setattr(cluster, "_CONNECT", 0.5)


@pytest.fixture
def speaker() -> Iterator[Callable[[bytes], str]]:
    """Servers that say something to whoever comes, and wait. Gives their addresses."""
    sockets = []

    def start(words: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            connection, _ = listening.accept()
            sockets.append(connection)
            connection.sendall(words)

        threading.Thread(target=serve, daemon=True).start()
        return f"tcp://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for made in sockets:
        made.close()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://", "tcp://127.0.0.1", "tls://127.0.0.1:8786", "oci:out", ""],
)
def test_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="is no executor") as caught, cluster.connected(address):
        pass
    assert "tcp://HOST:8786" in (caught.value.hint or "")


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x08" * 8])
def test_somebody_who_is_no_scheduler(speaker: Callable[[bytes], str], words: bytes) -> None:
    address = speaker(words)
    with pytest.raises(ExecutorError, match=address) as caught, cluster.connected(address):
        pass
    assert caught.value.cause and caught.value.hint


def test_nobody() -> None:
    with pytest.raises(ExecutorError, match="no Dask scheduler answers"), cluster.connected("tcp://127.0.0.1:1"):
        pass


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError) as caught, cluster.connected("tcp://127.0.0.1:8786"):
        pass
    assert caught.value.hint == "pip install 'layerbuild[dask]'"


def test_commands_without_an_executor_do_not_load_it() -> None:
    code = "import sys, layerbuild.cli.push, layerbuild.cli.build; sys.exit('dask' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={"PATH": os.environ["PATH"]}, check=True)


class Client:
    """What a `Cluster` asks of a client of Dask, where there is no scheduler."""

    status = "closed"

    def get_executor(self, pure: bool) -> None:
        assert pure


def test_deaths_have_words_and_a_way_out() -> None:
    made = cluster.Cluster(Client(), "tcp://127.0.0.1:8786")
    error = made.explain(distributed.KilledWorker("work-1", None, 3))
    assert error is not None and "tcp://127.0.0.1:8786" in error.message and "4 did" in (error.cause or "")
    assert "allowed-failures" in (error.hint or "")
    assert made.explain(ValueError()) is None


def test_a_client_that_has_lost_its_scheduler_takes_no_jobs() -> None:
    made = cluster.Cluster(Client(), "tcp://127.0.0.1:8786")
    lost = made.submit(Sealed(version="1", identity="x", data=b""))
    assert lost.cancelled() and made.count() is None


@pytest.mark.parametrize(("told", "seconds"), [(None, 300), ("90s", 90), ("2 minutes", 120), (5, 5)])
def test_patience_is_told_in_dask_s_own_words(told: object, seconds: float) -> None:
    import dask

    with dask.config.set({"distributed.scheduler.no-workers-timeout": told}):
        assert cluster.Cluster(Client(), "tcp://127.0.0.1:8786").patience == seconds

"""What every benchmark needs: a fresh registry, a command's time, memory and bytes, and a table."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from results import Run

_LAUNCH = Path(__file__).resolve().with_name("launch.py")
_TAIL = 2000
"""Characters of a failed command's output that are shown."""


class Failed(SystemExit):
    """A command ended with an error: which, how, and the last of what it printed.

    It ends the benchmark without a traceback, unless somebody catches it.
    """

    def __init__(self, command: str, how: str, output: str = "") -> None:
        super().__init__(f"{command} {how}\n{output}".rstrip())
        self.how = how
        self.output = output


def measure(command: Sequence[str], *, environment: Mapping[str, str], cwd: Path) -> Run:
    """Run `command` and ask the kernel what it took, all of its processes together.

    Raises:
        Failed: it ended with an error, or does not exist.
    """
    launched = [sys.executable, "-I", "-S", str(_LAUNCH), *command]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as line:
        process = subprocess.Popen(
            launched, env=dict(environment), cwd=cwd, stdout=line, stderr=said, start_new_session=True
        )
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        line.seek(0)
        found = json.loads(line.read() or b'{"code": 127}')
        if found["code"] != 0:
            said.seek(0)
            output = said.read().decode(errors="replace")[-_TAIL:]
            raise Failed(shlex.join(command), f"ended with {found['code']}", output)
    return Run(**found["taken"])


@contextlib.contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Debian's docker-registry with empty storage on a free port; gives `HOST:PORT`.

    Raises:
        Failed: it does not start.
    """
    with registry_process(directory) as (host, _):
        yield host


@contextlib.contextmanager
def registry_process(directory: Path) -> Iterator[tuple[str, int]]:
    """As `registry`, with the process's number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    storage = directory / "registry"
    config = directory / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '127.0.0.1:{port}', secret: bench}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(storage, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise Failed("docker-registry", "does not start")


def layerbuild_environment(store: Path) -> dict[str, str]:
    """The environment with a store of its own, and with the lock written."""
    clean = {name: value for name, value in os.environ.items() if name != "CI"}
    return {**clean, "LAYERBUILD_STORE": str(store)}


def layerbuild(*arguments: str) -> list[str]:
    """The command under test, in the interpreter that runs the benchmark."""
    return [sys.executable, "-m", "layerbuild", "--quiet", *arguments]


def warm(paths: Sequence[Path]) -> None:
    """Have the files in the page cache, and nothing of earlier steps waiting to be written."""
    os.sync()
    buffer = bytearray(1024 * 1024)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def version(program: str) -> str | None:
    """The first number that a program's `--version` shows, None where there is no such program."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "?"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is as readable in a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    return "\n".join(line(row) for row in [headers, rule, *rows])

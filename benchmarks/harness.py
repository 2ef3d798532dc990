"""What every benchmark needs: a fresh registry, a model of any size, a command's time and peak memory."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerbuild.demoproject import write_safetensors


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a command. Seconds; bytes of the largest process."""

    seconds: float
    cpu: float
    peak: int


def measure(command: Sequence[str], *, environment: Mapping[str, str], cwd: Path) -> Run:
    """Run `command` and ask the kernel what it took (wait4: the child and what it waited for)."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=dict(environment), cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode(errors='replace')[-2000:]}")
    return Run(seconds=seconds, cpu=usage.ru_utime + usage.ru_stime, peak=usage.ru_maxrss * 1024)


@contextlib.contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Debian's docker-registry with empty storage on a free port; gives `HOST:PORT`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    storage = directory / "registry"
    config = directory / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(storage, ignore_errors=True)


def model(path: Path, size: int, seed: int = 1) -> None:
    """A safetensors file of about `size` bytes of noise, which does not compress, as weights do not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, {"modelspec.title": f"bench {seed}"}, size, random.Random(seed))


def layerbuild_environment(store: Path) -> dict[str, str]:
    """The environment with a store of its own, and with the lock written."""
    clean = {name: value for name, value in os.environ.items() if name != "CI"}
    return {**clean, "LAYERBUILD_STORE": str(store)}


def layerbuild(*arguments: str) -> list[str]:
    """The command under test, in the interpreter that runs the benchmark."""
    return [sys.executable, "-m", "layerbuild", "--quiet", *arguments]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headers) + " |", "|" + " --- |" * len(headers)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])

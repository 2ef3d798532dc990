"""Sources become `.pyc` files, in processes of the target's Python: as many at a time as there are cores."""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from layerbuild.bytecode.interpreter import Interpreter
from layerbuild.errors import CompileError

SECONDS = 60
"""Processor time that the compiler may take for one source. The longest of PyTorch's takes 2."""

MEMORY = 2 * 1024**3
"""Bytes of memory that it may take."""

LARGEST = 16 * 1024**2
"""Bytes of the longest source that is compiled: one more would need more memory than that."""

_HEAD = struct.Struct("<IQII")
_LENGTH = struct.Struct("<I")
_LONGEST_ANSWER = 32 * LARGEST
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What became of a source.

    Attributes:
        data: the `.pyc`; None where this is no valid source, which Python leaves without one too.
        reason: why it is none: the name of Python's exception.
    """

    data: bytes | None
    reason: str | None = None


class Compiler:
    """Compiles sources. Safe to share between threads; to be closed, or used in a `with`.

    What a source becomes depends on its bytes, its path and the interpreter's version alone.

    Args:
        processes: at most so many at a time; default: one for each core.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        *,
        processes: int | None = None,
        seconds: int = SECONDS,
        memory: int = MEMORY,
    ) -> None:
        self.interpreter = interpreter
        self._seconds, self._memory = seconds, memory
        self.processes = processes or os.cpu_count() or 1
        self._places: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(self.processes):
            self._places.put(None)

    def compile(self, source: bytes, path: str) -> Compiled:
        """The bytecode of a source that will lie at `path` (absolute, in the image).

        Raises:
            CompileError: nobody can tell: the compiler crashed, or needs more time or memory than it may have.
        """
        if len(source) > LARGEST:
            raise too_long(path, len(source))
        process = self._places.get()
        try:
            process = process or _Process(self.interpreter)
            told = process.ask(_HEAD.pack(self._seconds, self._memory, len(path.encode()), len(source)), path, source)
        except OSError as error:
            if process is not None:
                process.close()
            process = None
            raise _impossible(path, f"{self.interpreter.path} ended: {error.strerror or 'no answer'}") from None
        finally:
            self._places.put(process)
        letter, rest = told[:1], told[1:]
        if letter == b"C":
            return Compiled(data=rest)
        reason = rest.decode(errors="replace")
        if letter == b"I":
            return Compiled(data=None, reason=reason)
        raise _impossible(path, reason)

    def compile_all(self, sources: Iterable[tuple[bytes, str]]) -> Iterator[Compiled]:
        """What becomes of each (source, path), in their order; only few are in memory at a time.

        Raises:
            CompileError: as `compile`.
        """
        waiting: list[Future[Compiled]] = []
        with ThreadPoolExecutor(self.processes) as threads:
            for source, path in sources:
                waiting.append(threads.submit(self.compile, source, path))
                if len(waiting) > 4 * self.processes:
                    yield waiting.pop(0).result()
            for result in waiting:
                yield result.result()

    def close(self) -> None:
        """End the processes, once they have nothing to do."""
        for process in [self._places.get() for _ in range(self.processes)]:
            if process is not None:
                process.close()
            self._places.put(None)

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Process:
    """One interpreter that answers; see `worker.py`.

    Raises:
        OSError: it does not start, or ended.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self._process = subprocess.Popen(
            [interpreter.path, "-I", "-S", "-B", "-c", _WORKER.read_text(encoding="utf-8")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
        )

    def ask(self, head: bytes, path: str, source: bytes) -> bytes:
        """The answer to a request."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(head + path.encode() + source)
        self._process.stdin.flush()
        (size,) = _LENGTH.unpack(_exactly(self._process.stdout, _LENGTH.size))
        if not 0 < size <= _LONGEST_ANSWER:
            raise OSError(f"an answer of {size} bytes")
        return _exactly(self._process.stdout, size)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise OSError("it ended")
    return data


def too_long(path: str, size: int) -> CompileError:
    """The error for a source of `size` bytes, which are more than `LARGEST`."""
    return _impossible(path, f"it has {size} bytes, {LARGEST} are the limit")


def _impossible(path: str, cause: str) -> CompileError:
    return CompileError(
        f"{path} cannot be compiled",
        cause=cause,
        hint="say 'bytecode: none', if that file is what it should be",
    )

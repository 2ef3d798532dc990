"""The bytecode of wheels' modules: made once for each wheel, place and version of Python, and kept as an archive."""

from __future__ import annotations

import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from layerbuild.bytecode import Compiler, cached_path, find
from layerbuild.execute.wheelhouse import Place, Wheelhouse
from layerbuild.model import Content, canonical_json, sha256_hex
from layerbuild.progress import Progress
from layerbuild.wheels.inspection import Wheel
from layerbuild.wheels.layout import Installed, installed

REVISION = 1
"""Of what is made: a new one where the same sources become other bytecode, or another set of them."""

_TIME = (1980, 1, 2, 0, 0, 0)


class CompiledWheels:
    """Bytecode of the wheels of a store. Safe to share between threads; one wheel is compiled at a time, by all
    cores."""

    def __init__(self, wheelhouse: Wheelhouse, progress: Progress) -> None:
        self._wheelhouse = wheelhouse
        self._progress = progress
        self._turn = threading.Lock()
        self._made: dict[str, Mapping[str, Content]] = {}

    def of(
        self, wheel: Wheel, content: Content, prefix: str, python: str, fetch: Callable[[], None]
    ) -> Mapping[str, Content]:
        """The bytecode of a wheel's modules, by path below `prefix`.

        Args:
            content: the wheel.
            fetch: brings it into the store; asked only where it has to be compiled.

        Raises:
            BytecodeError: no Python of that version is here, or a module cannot be compiled.
            SourceError, StoreError: the wheel cannot be read.
        """
        name = _name(content.sha256 or "", prefix, python)
        with self._turn:
            found = self._made.get(name)
            if found is None:
                found = self._wheelhouse.kept(name)
            if found is None:
                fetch()
                sources = [f for f in installed(wheel, prefix=prefix, python=python) if f.importable]
                with tempfile.TemporaryFile(dir=self._wheelhouse.temporary) as file:
                    left = self._compile(file, sources, wheel, content, prefix, python)
                    found = self._wheelhouse.keep(name, file)
                if left:
                    self._progress.note(f"{wheel.name}: no valid Python, and left as they are: {_shown(left)}")
            self._made[name] = found
        return found

    def is_kept(self, sha256: str, prefix: str, python: str) -> bool:
        """Whether a wheel needs no compiling on this machine."""
        return self._wheelhouse.kept(_name(sha256, prefix, python)) is not None

    def _compile(
        self, file: IO[bytes], sources: list[Installed], wheel: Wheel, content: Content, prefix: str, python: str
    ) -> list[str]:
        """Writes the archive; returns the paths of what does not compile."""
        left = []
        with (
            Compiler(find(python)) as compiler,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
            self._progress.task(f"compile {wheel.name}", sum(source.size for source in sources)) as task,
        ):

            def read() -> Iterator[tuple[bytes, str]]:
                for source in sources:
                    place = Place(archive=content, path=source.member or "", name=wheel.stem)
                    wanted = Content(size=source.size, sha256=source.sha256)
                    yield b"".join(self._wheelhouse.read(place, wanted)), f"{prefix}/{source.path}"

            for source, compiled in zip(sources, compiler.compile_all(read()), strict=True):
                task.advance(source.size)
                if compiled.data is None:
                    left.append(source.path)
                    continue
                path = cached_path(source.path, compiler.interpreter.tag)
                archive.writestr(zipfile.ZipInfo(path, _TIME), compiled.data)
        return left


def _name(sha256: str, prefix: str, python: str) -> str:
    return f"bytecode {sha256_hex(canonical_json([REVISION, sha256, prefix, python]).encode())}"


def _shown(paths: list[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(path.rpartition("/")[2] for path in paths[:5]) + more

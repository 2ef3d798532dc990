"""Progress and tables."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from fixtures.project import HEARS_CTRL_C, Project
from layerbuild.cli import display


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (4265146304, "4.0 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_size(count: int | None, text: str) -> None:
    assert display.size(count) == text


def test_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    display.print_table(["NAME", "SIZE"], [["a", "1.0 KiB"], ["b" * 90, "9 B"]], right=frozenset({1}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == lines
    assert {len(line) for line in lines} == {80} and "…" in lines[2]
    display.print_table(["NAME"], [])
    assert capsys.readouterr().out == "NAME\n"


class TestLines:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        return now

    def test_short_tasks_say_nothing(self, capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
        with display.Lines().task("read x", 10) as task:
            task.advance(10)
            clock[0] += 0.5
        assert capsys.readouterr() == ("", "")

    def test_long_tasks_say_how_far(self, capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
        with display.Lines().task("read x", 4096) as task:
            task.advance(1024)
            clock[0] += 11
            task.advance(1024)
        assert capsys.readouterr() == ("", "read x: 2.0 KiB of 4.0 KiB\nread x: 2.0 KiB in 11.0 s\n")

    def test_notes_stay(self, capsys: pytest.CaptureFixture[str]) -> None:
        display.Lines().note("[x] this")
        assert capsys.readouterr() == ("", "[x] this\n")

    def test_failed_task_is_not_done(self, capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
        with pytest.raises(KeyError), display.Lines().task("read x"):
            clock[0] += 5
            raise KeyError
        assert capsys.readouterr() == ("", "")


def test_quiet_and_no_terminal() -> None:
    assert isinstance(display.make_progress(quiet=True), display.Silent)
    assert isinstance(display.make_progress(quiet=False), display.Lines)


_BARS = """
import threading
from layerbuild.cli.display import make_progress
progress = make_progress(quiet=False)
print(type(progress).__name__)
def work(n):
    with progress.task(f"fetch [bold]{n}", 100 if n else None) as task:
        for _ in range(10):
            task.advance(10)
        progress.note(f"note [red]{n}")
for _ in range(2):
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
with progress.task("fails"):
    raise SystemExit(7)
"""


class _Terminal:
    """A process whose standard error is a terminal. `seen` is what it wrote there."""

    def __init__(self, command: list[str], **options: object) -> None:
        self._main, side = pty.openpty()
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **options.pop("env", {})}  # type: ignore[dict-item]
        self.process = subprocess.Popen(
            [*HEARS_CTRL_C, *command],
            stderr=side,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environ,
            **options,
        )  # type: ignore[call-overload]
        os.close(side)
        self.seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while select.select([self._main], [], [], 60)[0]:
            try:
                data = os.read(self._main, 65536)
            except OSError:
                return
            if not data:
                return
            self.seen += data

    def finish(self) -> bytes:
        """Standard output, once it has ended."""
        out: bytes = self.process.communicate(timeout=60)[0]
        self._reader.join(60)
        os.close(self._main)
        return out


def test_bars_on_a_terminal() -> None:
    terminal = _Terminal([sys.executable, "-W", "error", "-c", _BARS])
    assert terminal.finish() == b"Bars\n" and terminal.process.returncode == 7
    text = terminal.seen.decode()
    assert "Traceback" not in text
    # Words are shown as they are, whatever looks like markup.
    assert all(text.count(f"note [red]{n}") == 2 for n in range(4))
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "the cursor is left hidden"


def test_interrupt_gives_the_cursor_back(project: Project) -> None:
    project.write({"layers/l.yaml": "f: {kind: files, files: {/opt/x: file:pipe}}\n"})
    project.write({"recipes/r.yaml": "name: one\nlayers: [f]\n"})
    with (project.root / "pipe").open("wb") as sparse:
        sparse.truncate(30 * 1024**3)
    command = [sys.executable, "-m", "layerbuild", "lock"]
    terminal = _Terminal(command, cwd=project.root, env=project.environ)
    try:
        for _ in range(3000):
            if b"read pipe" in terminal.seen or terminal.process.poll() is not None:
                break
            time.sleep(0.01)
        terminal.process.send_signal(signal.SIGINT)
        terminal.finish()
    finally:
        terminal.process.kill()
    assert terminal.process.returncode == 130
    text = terminal.seen.decode()
    assert "Traceback" not in text and "interrupted; what is finished is kept" in text
    assert "\x1b[?25l" in text and text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")

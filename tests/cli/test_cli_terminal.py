"""Progress on a real terminal, as its screen shows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.project import Project
from fixtures.terminal import Terminal

_SHOWN = """
import sys, threading, time
from layerbuild.cli.display import make_progress, settle
progress = make_progress(quiet=False)
go = threading.Event()
print(type(progress).__name__, flush=True)
"""

_MANY = (
    _SHOWN
    + """
def work(n):
    with progress.task(f"push weights-{n:02}", 100 * 2**20) as task:
        while not go.wait(0.02):
            task.advance(2**12)
threads = [threading.Thread(target=work, args=(n,)) for n in range(18)]
[t.start() for t in threads]
sys.stdin.readline()
go.set()
[t.join() for t in threads]
settle()
print("the end", flush=True)
"""
)


def _python(code: str, **options: object) -> Terminal:
    return Terminal([sys.executable, "-W", "error", "-c", code], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [24, 60, 80, 160])
def test_many_tasks(columns: int) -> None:
    terminal = _python(_MANY, columns=columns, out=True)
    # Threads come when they come: until the last of them has taken a second, there are fewer.
    lines = terminal.until(lambda lines: any(line.startswith("and 12 m") for line in lines))
    assert lines[0] == "Bars" and len(lines) == 9
    assert lines[1].startswith("push weig" if columns < 60 else "push weights-")
    assert lines[7].startswith("and 12 m") and lines[8].startswith("total")
    assert all(len(line) < columns for line in lines)
    assert terminal.cursor_hidden
    terminal.enter()
    assert terminal.finish() == 0
    assert [line for line in terminal.lines if line] == ["Bars", "the end"] and not terminal.cursor_hidden


def test_resized() -> None:
    terminal = _python(_MANY, columns=100, out=True)
    terminal.until(lambda lines: any("MiB/s" in line or "KiB/s" in line for line in lines))
    terminal.resize(40, 12)
    lines = terminal.until(lambda lines: len(lines) > 2 and lines[-1].startswith("total") and "/s" not in lines[-1])
    assert all(len(line) < 40 for line in lines[-8:])
    terminal.resize(120, 30)
    terminal.until(lambda lines: lines[-1].startswith("total") and "/s" in lines[-1])
    terminal.enter()
    assert terminal.finish() == 0
    assert terminal.lines[-1] == "the end" and not terminal.cursor_hidden


def test_fewer_rows_than_lines() -> None:
    terminal = _python(_MANY, columns=80, rows=5, out=True)
    terminal.until(lambda lines: len(lines) == 5 and "push weights-0" in lines[1])
    terminal.enter()
    assert terminal.finish() == 0
    assert terminal.lines[-1] == "the end" and not terminal.cursor_hidden


def test_short_work_leaves_the_terminal_alone() -> None:
    code = _SHOWN + "for n in range(20):\n    with progress.task(f'{n}', 10) as t: time.sleep(0.03)\nsettle()\n"
    code += "assert 'rich' not in sys.modules\n"
    terminal = _python(code)
    assert terminal.finish() == 0 and terminal.raw == b""


def test_what_is_printed_comes_above() -> None:
    code = (
        _SHOWN
        + """
import click
with progress.task("read x", 100):
    time.sleep(1.6)
    progress.note("note [red]one[/] :smile: " + "x" * 100)
    time.sleep(0.5)
    click.echo("result")
    print("another", flush=True)
    time.sleep(0.5)
settle()
"""
    )
    terminal = _python(code, out=True)
    terminal.until(lambda lines: lines[-1].startswith("read x") and lines[-2] == "another" if len(lines) > 3 else False)
    assert terminal.finish() == 0
    assert terminal.lines == ["Bars", "note [red]one[/] :smile: " + "x" * 55, "x" * 45, "result", "another"]


def test_nothing_flickers_between_tasks() -> None:
    code = _SHOWN + (
        "with progress.task('long', 10):\n    time.sleep(1.5)\n"
        "for n in range(30):\n    with progress.task(f'short {n}', 10): time.sleep(0.03)\n    time.sleep(0.02)\n"
        "settle()\n"
    )
    terminal = _python(code)
    assert terminal.finish() == 0
    # Shown once, and taken away once.
    assert terminal.raw.count(b"\x1b[?25l") == 1 and not terminal.cursor_hidden
    assert terminal.lines == []


def test_an_error_gives_the_cursor_back() -> None:
    code = _SHOWN.replace("import sys", "import sys, layerbuild.cli.main as main") + (
        "import click\nfrom layerbuild.errors import SourceError\n"
        "def fail(*_):\n"
        "    with progress.task('read x', 10):\n        time.sleep(1.6)\n        raise SourceError('no', hint='yes')\n"
        "main._Commands.get_command = lambda *_: click.Command('lock', callback=fail)\n"
        "sys.argv = ['layerbuild', 'lock']\nmain.main()\n"
    )
    terminal = _python(code)
    assert terminal.finish() == 1
    assert b"\x1b[?25l" in terminal.raw and not terminal.cursor_hidden
    assert terminal.lines == ["error: no", "  try: yes", "  see: docs/troubleshooting.md#sources"]


def test_a_reader_that_goes_away_gives_the_cursor_back() -> None:
    code = _SHOWN.replace("import sys", "import os, sys, layerbuild.cli.main as main") + (
        "import click\n"
        "def unheard(*_):\n"
        "    with progress.task('read x', 10):\n        time.sleep(1.6)\n        raise BrokenPipeError\n"
        "main._Commands.get_command = lambda *_: click.Command('lock', callback=unheard)\n"
        "sys.argv = ['layerbuild', 'lock']\nmain.main()\n"
    )
    terminal = _python(code)
    assert terminal.finish() == 1
    assert b"\x1b[?25l" in terminal.raw and not terminal.cursor_hidden and terminal.lines == []


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_terminals_that_cannot_move_the_cursor(term: str) -> None:
    terminal = _python(
        _SHOWN + "with progress.task('read x', 10):\n    time.sleep(1.1)\n", env={**os.environ, "TERM": term}
    )
    assert terminal.finish() == 0
    assert terminal.out == b"Lines\n" and b"\x1b" not in terminal.raw and terminal.lines == ["read x: 1.1 s"]


def test_colours_only_where_they_are_wanted() -> None:
    code = _SHOWN + "with progress.task('read x', 10) as t:\n    t.advance(5); time.sleep(1.6)\nsettle()\n"
    plain = _python(code, env={**os.environ, "NO_COLOR": "1"}, columns=120)
    coloured = _python(code, columns=120)
    assert (plain.finish(), coloured.finish()) == (0, 0)
    assert b"\x1b[36m" in coloured.raw and b"\x1b[36m" not in plain.raw and "━".encode() in plain.raw


@pytest.fixture
def endless(project: Project) -> Project:
    """A project whose lock takes long: a file of 30 GiB."""
    project.write({"layers/l.yaml": "f: {kind: files, files: {/opt/x: file:pipe}}\n"})
    project.write({"recipes/r.yaml": "name: one\nlayers: [f]\n"})
    with (project.root / "pipe").open("wb") as sparse:
        sparse.truncate(30 * 1024**3)
    return project


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_gives_the_cursor_back(endless: Project, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "layerbuild", "lock"]
    terminal = Terminal(command, cwd=endless.root, env=endless.environ)
    terminal.until(lambda lines: any("read pipe" in line and "30.0 GiB" in line for line in lines))
    assert terminal.cursor_hidden
    terminal.send(number)
    assert terminal.finish() == code
    (line,) = terminal.lines
    assert line.startswith("interrupted; what is finished is kept") and not terminal.cursor_hidden
    assert not endless.lockfile.exists()


def test_sigterm_without_a_terminal(endless: Project, tmp_path: Path) -> None:
    with (tmp_path / "err").open("wb") as err:
        command = [sys.executable, "-m", "layerbuild", "lock", "--json"]
        process = subprocess.Popen(command, cwd=endless.root, env=endless.environ, stdout=err, stderr=err)
        try:
            while '"start"' not in (tmp_path / "err").read_text() and process.poll() is None:
                time.sleep(0.02)
            process.terminate()
            assert process.wait(60) == 143
        finally:
            process.kill()
    last = (tmp_path / "err").read_text().splitlines()[-1]
    assert '"interrupted"' in last and '"exit_code": 143' in last and "run the same command again" in last

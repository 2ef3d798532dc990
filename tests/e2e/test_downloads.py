"""Downloads that end in the middle, however that happens: the next run fetches what is missing, and no more."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from e2e.readers import sha256
from fixtures.project import HEARS_CTRL_C, Project, safetensors
from fixtures.specregistry import SpecRegistry
from fixtures.web import Answer, Asked, Web
from layerbuild.sources import ranges

_MIB = 1024 * 1024
_MODEL = safetensors(24 * _MIB, {"a": "b"}, seed=1)
_HALF = 12 * _MIB
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Set when a server may go on."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def declared(project: Project, web: Web) -> Project:
    """A model on a web server, locked by its digest."""
    return _declare(project, web, _MODEL)


def _declare(project: Project, web: Web, model: bytes) -> Project:
    source = f"source: '{web.url}/sd.safetensors', sha256: {sha256(model)}, size: {len(model)}"
    layer = f"sd: {{kind: model, type: checkpoint, {source}}}\n"
    project.write({"layers/l.yaml": layer, "recipes/r.yaml": _RECIPE}).run("lock", "--no-inspect")
    return project


def _end(project: Project, number: int, *arguments: str, size: int = _HALF) -> int:
    """Runs layerbuild and ends it by a signal, as soon as so many bytes are in the store. Gives their number."""
    command = [*HEARS_CTRL_C, sys.executable, "-m", "layerbuild", *arguments]
    with subprocess.Popen(command, cwd=project.root, env=project.environ, stderr=subprocess.DEVNULL) as process:
        _wait(lambda: _held(project) >= size or process.poll() is not None)
        process.send_signal(number)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    assert project.stored_files() == {}
    return _held(project)


def _held(project: Project) -> int:
    return sum(path.stat().st_size for path in project.beginnings())


def _wait(holds: Callable[[], bool]) -> None:
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never did")


def _half(web: Web, gate: threading.Event) -> None:
    """A server that sends half of the model, and then nothing until the gate opens; after that it is a good one."""
    web.route("/sd.safetensors", Answer(body=_MODEL, hold=(_HALF, gate)), _MODEL)


def _restarted(web: Web, gate: threading.Event) -> None:
    gate.set()
    web.requests.clear()
    web.sent.clear()


def _starts(web: Web) -> list[str]:
    return [asked.headers.get("range", "") for asked in web.requests]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_next_run_fetches_what_is_missing(declared: Project, web: Web, gate: threading.Event, number: int) -> None:
    _half(web, gate)
    held = _end(declared, number, "build")
    assert held == _HALF
    _restarted(web, gate)
    declared.run("build")
    assert _starts(web) == [f"bytes={held}-"] and web.sent["/sd.safetensors"] == len(_MODEL) - held
    assert declared.stored_files()[sha256(_MODEL)] == len(_MODEL) and declared.beginnings() == []
    assert declared.lock["files"][sha256(_MODEL)]["safetensors"] is True


def test_a_push_that_is_killed_fetches_on(
    declared: Project, web: Web, gate: threading.Event, spec_registry: SpecRegistry
) -> None:
    _half(web, gate)
    where = f"{spec_registry.host}/{spec_registry.prefix}"
    held = _end(declared, signal.SIGKILL, "push", where)
    _restarted(web, gate)
    declared.run("push", where)
    assert _starts(web) == [f"bytes={held}-"] and web.sent["/sd.safetensors"] == len(_MODEL) - held
    assert any(_MODEL in blob for blob in spec_registry.blobs.values())


def test_a_damaged_beginning_costs_one_more_download(declared: Project, web: Web, gate: threading.Event) -> None:
    _half(web, gate)
    held = _end(declared, signal.SIGKILL, "build")
    (kept,) = declared.beginnings()
    with kept.open("r+b") as file:
        file.write(b"damaged")
    _restarted(web, gate)
    done = declared.run("build")
    assert "of no use" in done.err and _starts(web) == [f"bytes={held}-", ""]
    assert declared.stored_files()[sha256(_MODEL)] == len(_MODEL) and declared.beginnings() == []


def test_a_damaged_beginning_is_found_in_the_middle_of_a_push(
    declared: Project, web: Web, gate: threading.Event, spec_registry: SpecRegistry
) -> None:
    _half(web, gate)
    _end(declared, signal.SIGKILL, "build")
    (kept,) = declared.beginnings()
    kept.write_bytes(bytes(_HALF))
    _restarted(web, gate)
    done = declared.run("push", f"{spec_registry.host}/{spec_registry.prefix}")
    assert "of no use" in done.err and len(web.requests) == 2
    large = [blob for blob in spec_registry.blobs.values() if len(blob) > _HALF]
    assert len(large) == 1 and _MODEL in large[0]


def test_a_file_without_a_digest_is_fetched_once(project: Project, web: Web) -> None:
    layer = f"sd: {{kind: model, type: checkpoint, source: '{web.route('/sd.safetensors', _MODEL)}'}}\n"
    project.write({"layers/l.yaml": layer, "recipes/r.yaml": _RECIPE}).run("lock")
    assert project.stored_files()[sha256(_MODEL)] == len(_MODEL)
    project.run("build")
    assert len(web.requests) == 1 and web.sent["/sd.safetensors"] == len(_MODEL)
    assert project.lock["files"][sha256(_MODEL)]["safetensors"] is True


def test_another_file_at_the_server_ends_it(declared: Project, web: Web, gate: threading.Event) -> None:
    _half(web, gate)
    _end(declared, signal.SIGKILL, "build")
    _restarted(web, gate)
    web.route("/sd.safetensors", _MODEL[:-1] + b"x")
    declared.run("build", check=False).failed(1, "not what was pinned")
    assert len(web.requests) == 2 and declared.beginnings() == [] and declared.stored_files() == {}


def test_who_waits_goes_on_where_the_other_was_killed(declared: Project, web: Web, gate: threading.Event) -> None:
    _half(web, gate)
    command = [sys.executable, "-m", "layerbuild", "build"]
    with subprocess.Popen(command, cwd=declared.root, env=declared.environ, stderr=subprocess.DEVNULL) as first:
        _wait(lambda: _held(declared) >= _HALF)
        with subprocess.Popen(command, cwd=declared.root, env=declared.environ, stderr=subprocess.PIPE) as second:
            assert second.stderr is not None
            assert any(b"waiting for another run" in line for line in second.stderr)
            first.kill()
            _wait(lambda: first.poll() is not None)
            gate.set()
            second.communicate(timeout=60)
    assert second.returncode == 0
    assert _starts(web) == ["", f"bytes={_HALF}-"]
    assert declared.stored_files()[sha256(_MODEL)] == len(_MODEL)


def test_a_full_disk_is_made_room_on(declared: Project, web: Web) -> None:
    web.route("/sd.safetensors", _MODEL)
    limited = ["sh", "-c", f'ulimit -f {_HALF // 512} && exec "$@"', "sh"]
    command = [*limited, sys.executable, "-m", "layerbuild", "build"]
    done = subprocess.run(
        command, cwd=declared.root, env=declared.environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1 and "make room on its disk" in done.stderr and "Traceback" not in done.stderr
    held = _held(declared)
    assert 0 < held <= _HALF and declared.stored_files() == {}
    web.requests.clear()
    web.sent.clear()
    declared.run("build")
    assert _starts(web) == [f"bytes={held}-"] and web.sent["/sd.safetensors"] == len(_MODEL) - held


def test_a_large_file_over_several_connections(project: Project, web: Web, gate: threading.Event) -> None:
    empty = safetensors(0)
    size = ranges.LARGE + 9 * _MIB
    header = empty[8:].replace(b"[0]", b"[%d]" % size).replace(b"[0, 0]", b"[0, %d]" % size)
    model = len(header).to_bytes(8, "little") + header + bytes(size)
    _declare(project, web, model)
    stop = 100 * _MIB

    def answer(asked: Asked) -> Answer:
        start = int(asked.headers["range"].removeprefix("bytes=").partition("-")[0])
        return Answer(body=model, hold=(0, gate) if start >= stop else None)

    web.handle("/", answer)
    held = _end(project, signal.SIGKILL, "build", size=stop)
    # It is a beginning, up to the first byte that has not come.
    assert stop <= held < stop + ranges.SEGMENT
    _restarted(web, gate)
    project.run("build")
    assert project.stored_files()[sha256(model)] == len(model)
    assert web.sent["/sd.safetensors"] == len(model) - held
    assert len(web.requests) == -(-(len(model) - held) // ranges.SEGMENT)

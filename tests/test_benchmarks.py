"""The benchmark's own arithmetic, its counters, its page, and that it runs."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import bars
import downloading
import layouts
import ours
import peers
import report
import results
import tables
import weights
from fileserver import serving
from harness import Failed, measure
from layouts import Layer
from parts import pushing
from parts.bench import Bench, in_turn
from proxy import counting
from results import Case, Results, Run

_ROOT = Path(__file__).resolve().parents[1]
MIB = 1024 * 1024


def run(seconds: float, **more: int) -> Run:
    return Run(seconds=seconds, cpu=seconds, **{"peak": 50 * MIB, **more})


def runs(*seconds: float) -> list[Run]:
    return [run(value, sent=5000, read=MIB, written=4096) for value in seconds]


def sample(first: float = 10.5, written: int = 4096) -> Results:
    """Three rounds, in which layerbuild's first push takes `first` seconds and the floor 10."""
    push = {
        "curl -T": Case(steps={"first": runs(10, 10, 10)}),
        "layerbuild": Case(
            steps={
                "first": [run(first, written=written)] * 3,
                **{step: runs(0.4, 0.3, 0.6) for step in ("same", "other", "elsewhere")},
            }
        ),
        bars.NO_STORE: Case(steps={"first": [run(15, written=written)] * 3}),
        "skopeo copy": Case(steps={step: runs(20, 10, 12) for step in ("first", "same", "other")}),
        "buildah": Case(missing="buildah is not installed"),
    }
    counted = {name: dataclasses.replace(case, facts={"size": 5000}) for name, case in push.items()}
    hashing = {
        "one sha256": Case(steps={"whole": runs(1.1, 1.1, 1.1), "start": runs(0.1, 0.1, 0.1)}),
        "layerbuild build": Case(steps={"whole": runs(1.5, 1.5, 1.5), "start": runs(0.5, 0.5, 0.5)}),
    }
    sizes = {"uncompressed": 100 * MIB, "zstd": 92 * MIB, "gzip": 93 * MIB}
    pull = {name: Case(steps={"pull": runs(2, 3, 4)}, facts={"size": size}) for name, size in sizes.items()}
    memory = {"layerbuild build": Case(steps={"build": runs(9)}, facts={"size": 10 * 1024**3})}
    rows = [
        {"images": count, "command": command, "seconds": 4.0, "cpu": 4.9, "peak": 90 * MIB}
        for count in (1, 1000)
        for command in ("lock --check", "plan", "build", "push, changed")
    ]
    rows.append({"images": 1000, "command": "the registry alone", "seconds": 3.0, "cpu": None, "peak": None})
    return Results(
        date="2026-01-31",
        machine={"cores": 2, "processor": "ACME 9", "memory": 24 * 1024**3, "kernel": "Linux 6", "python": "3.11"},
        versions={"layerbuild": "0.1.0", "skopeo": "1.9.3", "buildah": None},
        size=2 * 1024**3,
        rounds=3,
        parts={"push": push, "bytes": counted, "hashing": hashing, "pull": pull, "memory": memory},
        scale={"models": 40, "rows": rows},
    )


# --- arithmetic -------------------------------------------------------------------------------------


def test_ratios_are_those_of_the_same_round() -> None:
    assert results.ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == [2.0, 3.0, 1.0]


def test_steps_of_a_round_are_added_where_there_are_such() -> None:
    case = Case(steps={"build": runs(1, 2), "first": runs(10, 20)})
    assert results.totals(case, ("build", "first")) == [11, 22]
    assert results.totals(case, ("first", "absent")) == [10, 20]


def test_commands_of_a_step_are_one_run() -> None:
    both = results.together([run(1, peak=7, read=1, sent=3), run(2, peak=5, read=2)])
    assert both == Run(seconds=3, cpu=3, peak=7, read=3, written=None, sent=None)


def test_a_pass_is_the_command_without_its_start() -> None:
    case = Case(steps={"whole": runs(3, 4, 5), "start": runs(0.5, 1, 0.75)})
    assert results.passes(case) == [2.25, 3.25, 4.25]


def test_results_survive_a_file() -> None:
    assert Results.from_json(json.loads(json.dumps(sample().as_json()))) == sample()


# --- promises ---------------------------------------------------------------------------------------


def verdicts(found: Results) -> dict[str, tuple[str, bool | None]]:
    return {bar.what: (bar.measured, bar.met) for bar in bars.bars(found)}


def test_promises_are_held_against_what_was_measured() -> None:
    assert verdicts(sample()) == {
        "hashing (one sha256 = 1.00)": ("1.00", True),
        "first push (curl -T = 1.00)": ("1.05", True),
        "written to the disk for it": ("0.00 MiB", True),
        "written with --no-store": ("0.00 MiB", True),
        "second image, same repository": ("0.40 s", True),
        "second image, another repository": ("0.40 s", True),
        "sent for it": ("4.9 KiB", True),
        "read of the model for it": ("0 B", True),
        "planning 1,000 images, CPU": ("4.9 s", True),
        "composing 1,000 images, CPU": ("4.9 s", True),
        "images pushed in a second": ("250 of 333", True),
        "peak memory of any command": ("94.4 MB", True),
    }


def test_promises_that_are_not_kept_are_said_to_be_so() -> None:
    found = verdicts(sample(first=11.5, written=2 * MIB))
    assert found["first push (curl -T = 1.00)"] == ("1.15", False)
    assert found["written to the disk for it"] == ("2.00 MiB", False)
    assert "**not met**" in tables.promises(sample(first=11.5))


def test_promises_without_a_measurement_are_neither() -> None:
    nothing = dataclasses.replace(sample(), parts={}, scale=None)
    assert {met for _, met in verdicts(nothing).values()} == {None}
    part = {**sample().parts["push"], "curl -T": Case(missing="curl is not installed")}
    no_floor = dataclasses.replace(sample(), parts={**sample().parts, "push": part})
    assert verdicts(no_floor)["first push (curl -T = 1.00)"] == ("not measured", None)
    assert "curl -T was not tried: curl is not installed" in report.for_terminal(no_floor)


# --- the page ---------------------------------------------------------------------------------------


def test_tables_fit_a_terminal_and_name_who_is_missing() -> None:
    shown = report.for_terminal(sample())
    for text in (shown, report.for_terminal(sample(first=11.5)), report.for_terminal(sample(written=1024**3))):
        assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^\| buildah +\| +model \| not tried \|", shown, re.MULTILINE)
    assert shown.endswith("buildah was not tried: buildah is not installed")
    # 20, 10 and 12 seconds, beside 10 of the floor in each round.
    assert re.search(r"^\| skopeo copy +\| +layout \| +1.20 \| 1.00 to 2.00 \|", shown, re.MULTILINE)


def test_bytes_are_multiples_of_the_model_that_they_were_counted_with() -> None:
    (line,) = [line for line in tables.byte_ratios(sample(written=1024**3)).splitlines() if "| layerbuild " in line]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["-", "0.50", "-"]
    (line,) = [line for line in tables.byte_ratios(sample()).splitlines() if "| skopeo" in line]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["0.00", "0.00", "1.00"]


def test_parts_that_did_not_run_have_no_table() -> None:
    shown = report.for_terminal(dataclasses.replace(sample(), parts={}, scale=None))
    assert re.findall(r"^\w.*", shown, re.MULTILINE) == ["Promises"]


def test_the_page_says_when_where_and_with_what() -> None:
    text = report.page(sample())
    assert "Measured on 2026-01-31: 2 cores of ACME 9, 24 GiB of memory, Linux 6, Python 3.11." in text
    assert re.search(r"\| buildah +\| missing \|", text)
    assert max(len(line) for line in text.splitlines()) <= 120


def test_the_page_is_made_from_its_data() -> None:
    data = json.loads(report.DATA.read_text(encoding="utf-8"))
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.page(Results.from_json(data)) == page, "run benchmarks/report.py"


# --- counters ---------------------------------------------------------------------------------------


def test_a_command_is_measured_with_its_children(tmp_path: Path) -> None:
    child = f"{sys.executable} -c 'x = bytearray(64 << 20)'"
    taken = measure(["sh", "-c", f"head -c 8M /dev/zero >x; cat x >y; {child}; :"], environment={}, cwd=tmp_path)
    assert 16 * MIB <= taken.read < 64 * MIB
    assert 64 * MIB <= taken.peak < 128 * MIB


def test_a_small_command_does_not_inherit_the_memory_of_who_starts_it(tmp_path: Path) -> None:
    ballast = bytearray(64 * MIB)
    assert measure(["true"], environment={}, cwd=tmp_path).peak < 32 * MIB < len(ballast)


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="exit 3' ended with 3\nno such luck"):
        measure(["sh", "-c", "echo no such luck; exit 3"], environment={}, cwd=tmp_path)
    with pytest.raises(Failed, match="no-such-program"):
        measure(["no-such-program"], environment={}, cwd=tmp_path)


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that answers the first connection with as many bytes as it got, and ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)
    listener.close()


def test_the_proxy_counts_what_the_client_sends(echo: str) -> None:
    data = bytes(range(256)) * 4096 * 3
    with counting(echo) as counter:
        host, _, port = counter.host.partition(":")
        with socket.create_connection((host, int(port))) as client:
            sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
            sender.start()
            received = b"".join(iter(lambda: client.recv(65536), b""))
            sender.join()
        assert received == data
        assert counter.sent == len(data)


# --- what it works on -------------------------------------------------------------------------------


def test_weights_compress_as_real_ones_do(tmp_path: Path) -> None:
    size = 3 * MIB + 10
    weights.model(tmp_path / "a.safetensors", size)
    weights.model(tmp_path / "b.safetensors", size)
    weights.model(tmp_path / "c.safetensors", size, seed=2)
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    start = 8 + int.from_bytes(a[:8], "little")
    assert json.loads(a[8:start])["model.weight"]["data_offsets"] == [0, size]
    assert len(a) == start + size
    assert 0.90 < len(zlib.compress(a)) / len(a) < 0.94


def test_a_sparse_model_takes_no_room(tmp_path: Path) -> None:
    weights.sparse(tmp_path / "model", 10 * 1024**3)
    stat = (tmp_path / "model").stat()
    assert stat.st_size > 10 * 1024**3 and stat.st_blocks * 512 < MIB


def test_layouts_are_read_by_skopeo(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a note")
    peers.write_tar(tmp_path / "note.tar", tmp_path / "note.txt", "note.txt")
    layer = Layer.plain(tmp_path / "note.tar")
    for tag in ("one", "two"):
        layouts.write(tmp_path / "layout", tag, [layer])
    where = f"dir:{tmp_path / 'copy'}"
    copy = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", f"oci:{tmp_path / 'layout'}:two", where]
    subprocess.run(copy, check=True, capture_output=True)
    assert (tmp_path / "copy" / layer.digest).read_bytes() == layer.path.read_bytes()


# --- it runs ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fake:
    """A peer that runs one command of the shell."""

    name: str
    script: str = ":"
    reason: str | None = None
    ours: bool = False

    def missing(self) -> str | None:
        return self.reason

    def steps(self, host: str, room: Path) -> peers.Steps:
        yield peers.Step(title="first", commands=[["sh", "-c", self.script]], environment={})


def test_peers_take_turns_and_those_that_cannot_say_why(tmp_path: Path) -> None:
    bench = Bench(root=tmp_path, size=MIB, rounds=3)
    order = []

    def once(peer: peers.Peer) -> dict[str, Run]:
        order.append(peer.name)
        (step,) = peer.steps("", tmp_path)
        return {step.title: measure(step.commands[0], environment={}, cwd=tmp_path)}

    broken = Fake("broken", f"echo 'no room in {tmp_path}/x: /etc/secret'; exit 1")
    found = in_turn(bench, [Fake("a"), Fake("b"), broken, Fake("absent", reason="it is not installed")], once)
    assert order == ["a", "b", "broken", "b", "a", "a", "b"]
    assert [len(found[name].steps["first"]) for name in "ab"] == [3, 3]
    assert found["absent"].missing == "it is not installed"
    assert found["broken"].missing == "it ended with 1: no room in PATH: PATH"
    with pytest.raises(Failed):
        in_turn(bench, [dataclasses.replace(broken, ours=True)], once)


def test_layerbuild_beside_the_floor_through_the_proxy(tmp_path: Path) -> None:
    bench = Bench(root=tmp_path, size=20 * MIB, rounds=1)
    model = tmp_path / "models" / "model.safetensors"
    weights.model(model, bench.size)
    floor = pushing.once(bench, peers.Curl(peers.Work(model.parent, model)), count=True)
    assert floor["first"].sent is not None and floor["first"].sent > bench.size
    with serving(model) as url:
        usual, *others = ours.all_ways(tmp_path, model, url)
        firsts = [pushing.once(bench, way, count=True)["first"] for way in others]
    assert all(bench.size < (first.sent or 0) < bench.size + 64 * 1024 for first in firsts)
    found = pushing.once(bench, usual, count=True)
    assert list(found) == ["first", "same", "other", "elsewhere"]
    sent = {title: step.sent or 0 for title, step in found.items()}
    assert bench.size < sent.pop("first") < bench.size + 64 * 1024
    assert max(sent.values()) < 64 * 1024
    assert model.is_file()


def test_one_part_by_itself(tmp_path: Path) -> None:
    data = tmp_path / "found.json"
    command = [sys.executable, str(_ROOT / "benchmarks/run.py"), "--size", "1MiB", "--rounds", "1", "--only", "hashing"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [*command, "--json", str(data)], capture_output=True, text=True, check=False, env={"TMPDIR": str(scratch)}
    )
    assert done.returncode == 0, done.stderr
    found = Results.from_json(json.loads(data.read_text()))
    assert found.size == MIB and set(found.parts["hashing"]) == {"one sha256", "layerbuild build"}
    assert report.for_terminal(found) in done.stdout
    assert not list(scratch.iterdir())
    assert str(_ROOT) not in data.read_text() and socket.gethostname() not in data.read_text()


def test_layers_at_once_and_an_image_that_is_there(tmp_path: Path) -> None:
    data = tmp_path / "found.json"
    command = [sys.executable, str(_ROOT / "benchmarks/parallelpush.py"), "--layers", "2", "--size", "1MiB"]
    done = subprocess.run([*command, "--rounds", "1", "--json", str(data)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(data.read_text())
    assert {name: len(rows) for name, rows in found["rows"].items()} == {
        "four at a time": 1,
        "one at a time": 1,
        "in one pass": 1,
    }
    # A tag; of each blob whether it is there; sessions and bodies; the manifest.
    asked = {name: row["requests"] for name, row in found["again"].items()}
    assert asked == {"first": 1 + 40 + 2 * 41 + 1, "unchanged": 1, "another tag": 1 + 41 + 1}
    assert "| one at a time " in done.stdout and "| 1.00 |" in done.stdout.replace("  ", " ")


def test_downloading_beside_curl(tmp_path: Path) -> None:
    found = downloading.run(tmp_path, 2 * MIB, [0, 200], 1)
    programs = ["curl", "layerbuild build"]
    assert [(row["rate"], row["program"]) for row in found] == [(rate, name) for rate in (0, 200) for name in programs]
    assert len(downloading.report(found).splitlines()) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_sizes_have_units() -> None:
    script = [sys.executable, str(_ROOT / "benchmarks/run.py"), "--size"]
    done = subprocess.run([*script, "2 pounds"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "'2 pounds' is no size: write 512MiB or 2GiB" in done.stderr

"""`layerbuild gc`: what locks need stays, what runs is left alone, and what went is had anew."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.readers import layout_manifests
from fixtures.gitrepo import GitRepo
from fixtures.project import BIG, safetensors
from fixtures.pythonbase import NETWORK
from fixtures.registry import Front
from fixtures.tidyproject import TidyProject
from fixtures.web import Answer, Web
from fixtures.wheels import Index
from fixtures.wholeness import registry_images
from layerbuild.execute.upkeep import Wishes, collect
from layerbuild.progress import Silent, Task
from layerbuild.store import Store

_RECIPE = "name: worker\nbase: scratch\nwebui: {root: /webui}\nlayers: [webui, sd]\ntags: [v1]\npython: '%s'\n"
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_LONG_HEADER = {"about": "x" * 5000}


@pytest.fixture
def project(tidy: TidyProject) -> TidyProject:
    return tidy


@pytest.fixture
def model(web: Web) -> str:
    """Address of a model with a header that is too long for a lock."""
    return web.route("/sd.safetensors", safetensors(BIG, _LONG_HEADER, seed=1))


@pytest.fixture
def worker(project: TidyProject, model: str) -> TidyProject:
    """A project of all that a store can hold for it: a fetched model, a git tree, bytecode, a compressed layer."""
    commit = GitRepo(project.root / "git").commit({"webui.py": b"print()\n", "modules/m.py": b"A = 1\n"})
    declare(project, model, commit)
    project.run("build")
    return project


def declare(project: TidyProject, model: str, commit: str) -> None:
    layers = (
        f"webui: {{kind: webui, source: 'git+file:git@{commit}'}}\n"
        f"sd: {{kind: model, type: checkpoint, source: '{model}'}}\n"
    )
    project.write({"layers/l.yaml": layers, "recipes/r.yaml": _RECIPE % _PYTHON}).run("lock")


def small(project: TidyProject, web: Web, name: str, *, seed: int, size: int = 2 << 20) -> TidyProject:
    """A project of one fetched model, built."""
    address = web.route(f"/{name}.safetensors", safetensors(size, seed=seed))
    project.write(
        {
            "layers/l.yaml": f"sd: {{kind: model, type: checkpoint, source: '{address}'}}\n",
            "recipes/r.yaml": f"name: {name}\nbase: scratch\nwebui: {{root: /webui}}\nlayers: [sd]\ntags: [v1]\n",
        }
    ).run("lock")
    project.run("build")
    return project


def held(project: TidyProject) -> dict[str, int]:
    """Every stored thing, with its size in bytes."""
    value = project.run("store", "ls", "--json").json
    return {f"{item['kind']}:{item['name']}": item["size"] for item in value["items"]}


def age(project: TidyProject, days: int = 100) -> None:
    """Nothing in the store was used lately."""
    then = time.time() - days * 86400
    for directory in ("files", "blobs"):
        for path in (project.store / directory).glob("*/*"):
            os.utime(path, (then, then))
    for path in (project.store / "git").glob("*/HEAD"):
        os.utime(path, (then, then))


def test_all_that_a_lock_needs_stays(worker: TidyProject) -> None:
    before = held(worker)
    assert {name.partition(":")[0] for name in before} == {"files", "bytecode", "documents", "layers", "git"}
    done = worker.run("gc", "--json").json
    assert done["removed"] == [] and done["freed"] == 0 and done["left"] == sum(before.values())
    assert held(worker) == before
    # Not because everything was just used.
    assert set(done["kept"]) == {"needed"}


def test_what_a_lock_does_not_need_any_more_goes_and_nothing_else_is_made_anew(
    worker: TidyProject, model: str, web: Web
) -> None:
    before = held(worker)
    other = web.route("/other.safetensors", safetensors(BIG, _LONG_HEADER | {"b": "y"}, seed=2))
    commit = GitRepo(worker.root / "git2").commit({"webui.py": b"print(2)\n"})
    layers = worker.root / "layers/l.yaml"
    text = layers.read_text().replace(model, other)
    layers.write_text(text.replace(text.partition("git@")[2].partition("'")[0], commit).replace("git@", "git2@"))
    worker.run("lock")
    worker.run("build")
    both = held(worker)
    text = worker.lockfile.read_text()
    worker.lockfile.write_text(text)
    dry = worker.run("gc", "--dry-run", "--json").json
    assert held(worker) == both, "a dry run removes nothing"
    done = worker.run("gc", "--json").json
    assert done["removed"] == dry["removed"] and done["freed"] == dry["freed"]
    after = held(worker)
    # What was made of the old ones has gone with them; receipts are no things and stay.
    assert {name.partition(":")[0] for name in both.keys() - after.keys()} >= {"files", "bytecode", "documents", "git"}
    assert both.keys() - after.keys() <= before.keys()
    asked = len(web.requests)
    worker.run("build", "--check")
    assert len(web.requests) == asked, "what is needed was all there"
    worker.run("store", "verify")


def test_what_went_is_had_anew(worker: TidyProject, web: Web) -> None:
    worker.run("push", "oci:before")
    worker.run("gc", "--max-size", "0", "--even-needed")
    assert held(worker) == {}
    worker.run("push", "oci:after")
    assert layout_manifests(worker.root / "after") == layout_manifests(worker.root / "before")
    assert len(web.asked("/sd.safetensors", "GET")) > 1


@pytest.fixture
def python(project: TidyProject, index: Index, warm_store: Path) -> TidyProject:
    """A project with a layer of Python packages, built."""
    project.environ |= {name: os.environ[name] for name in NETWORK if name in os.environ}
    project.environ.setdefault("UV_CACHE_DIR", str(warm_store.with_name("uv-cache")))
    index.wheel("alpha", files={"alpha/__init__.py": b"x = 1\n"})
    layer = f"{{kind: python, requirements: [alpha], indexes: ['{index.url}'], python: '{_PYTHON}'}}"
    recipe = "name: worker\nbase: scratch\nlayers: [packages]\ncompression: gzip\n"
    project.write({"layers/l.yaml": f"packages: {layer}\n", "recipes/r.yaml": recipe}).run("lock")
    project.run("build")
    return project


@pytest.mark.xdist_group("packages")
def test_wheels_their_listings_and_their_bytecode_stay(python: TidyProject) -> None:
    before = held(python)
    assert {name.partition(":")[0] for name in before} == {"files", "documents", "bytecode", "layers"}
    assert python.run("gc", "--json").json["removed"] == []
    python.lockfile.unlink()
    python.run("gc", "--all")
    assert held(python) == {}


@pytest.mark.xdist_group("packages")
def test_what_was_built_here_stays_unless_all_shall_go(python: TidyProject) -> None:
    wheel = python.lock["layers"]["packages"]["pins"]["wheel alpha"]["files"][0]["sha256"]
    with contextlib.closing(Store(python.store)) as store:
        store.remember_built(wheel)
    python.neighbour().write({"lockfile.yaml": python.lockfile.read_bytes()})
    python.write({"lockfile.yaml": "version: 1\n"})
    done = python.run("gc")
    assert "built here" in done.out and set(held(python)) == {f"built:{wheel}"}
    assert python.run("gc", "--max-size", "0").out.count("built here") == 1
    python.run("gc", "--all")
    assert held(python) == {}


def test_projects_of_one_store_keep_their_own(project: TidyProject, web: Web) -> None:
    one, two = small(project, web, "one", seed=1), small(project.neighbour(), web, "two", seed=2)
    both = held(one)
    assert one.run("gc", "--json").json["projects"] == sorted(str(p.root) for p in (one, two))
    assert held(one) == both
    # A project that is gone keeps nothing, and is told of once.
    two.lockfile.rename(two.root / "kept.yaml")
    done = one.run("gc", "--dry-run")
    assert f"the lock of {two.root} is gone" in done.out
    # Its lock may be named, wherever it is now.
    assert one.run("gc", "--dry-run", "--json", "--root", str(two.root / "kept.yaml")).json["removed"] == []
    # Largest first; and the two small layers that went with it.
    gone, *layers = one.run("gc", "--json").json["removed"]
    assert "two.safetensors" in gone["title"] and gone["size"] > 2 << 20
    assert [item["kind"] for item in layers] == ["layers", "layers"]
    assert str(two.root) not in one.run("gc").out
    assert len(held(one)) == len(both) - 3


def test_outside_of_any_project_it_works_the_same(project: TidyProject, web: Web, tmp_path: Path) -> None:
    one = small(project, web, "one", seed=1)
    before = held(one)
    nowhere = project.neighbour("nowhere")
    (nowhere.root / "recipes").rmdir()
    assert nowhere.run("gc", "--json").json["projects"] == [str(one.root)]
    assert held(one) == before


def test_nothing_goes_while_nobody_knows_what_is_needed(project: TidyProject, web: Web) -> None:
    one, two = small(project, web, "one", seed=1), small(project.neighbour(), web, "two", seed=2)
    before = held(one)
    two.lockfile.write_text("version: 1\n<<<<<<< ours\n")
    one.run("gc", check=False).failed(2, str(two.lockfile), "cannot be read")
    assert "unreadable" in one.run("store").out
    for each in (one, two):
        each.lockfile.unlink()
    one.run("gc", check=False).failed(2, "no project", "--root", "--all")
    one.run("gc", "--root", "nowhere.yaml", check=False).failed(2, "nowhere.yaml")
    assert held(one) == before
    one.run("gc", "--all")
    assert held(one) == {}


def test_a_disk_that_is_not_mounted_keeps_all_until_it_is_forgotten(project: TidyProject, web: Web) -> None:
    one, two = small(project, web, "one", seed=1), small(project.neighbour(), web, "two", seed=2)
    before, away = held(one), two.root.with_name("away")
    # As it would be, had a disk been mounted there.
    with contextlib.closing(Store(one.store)) as store:
        store.query("UPDATE mounts SET mount = ? WHERE lock = ?", os.fsencode(two.root), os.fsencode(two.lockfile))
    two.root.rename(away)
    for directory in (False, True):
        if directory:
            two.root.mkdir()
        one.run("gc", "--all", check=False).failed(2, str(two.lockfile), "not mounted", "--forget")
        assert str(two.root) in one.run("store", "--json").json["unreadable"]
    assert held(one) == before
    one.run("gc", "--forget", str(away), check=False).failed(2, str(away), "layerbuild store")
    dry = one.run("gc", "--forget", str(two.root), "--dry-run", "--json").json
    assert len(dry["removed"]) == 3 and held(one) == before
    assert one.run("gc", "--forget", str(two.root), "--json").json["removed"] == dry["removed"]
    assert one.run("store", "--json").json["unreadable"] == []


def test_a_project_that_is_locked_for_the_first_time_meanwhile_is_not_forgotten(project: TidyProject, web: Web) -> None:
    one, two = small(project, web, "one", seed=1), small(project.neighbour(), web, "two", seed=2)
    before = held(one)
    text = two.lockfile.read_bytes()
    two.lockfile.unlink()
    with contextlib.closing(Store(one.store)) as store:
        # What 'layerbuild lock' does, from its beginning to its end.
        store.remember_project(two.lockfile)
        for path in one.store.glob("[fb]*/*/*"):
            assert store.present(path)
        assert "is gone" not in one.run("gc").out
        two.lockfile.write_bytes(text)
    assert one.run("gc", "--json").json["removed"] == []
    assert held(one) == before


def test_a_lock_that_is_written_meanwhile_counts(project: TidyProject, web: Web) -> None:
    one, two = small(project, web, "one", seed=1), small(project.neighbour(), web, "two", seed=2)
    needed, text = held(one), two.lockfile.read_bytes()
    two.lockfile.write_text("version: 1\n")
    for number in range(200):
        name = f"{number:064x}"
        path = project.store / "files" / name[:2] / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    # Rubbish goes first.
    age(project, 50)
    for path in project.store.glob("files/00/*"):
        os.utime(path, (0, 0))

    class Writing(Silent):
        """Writes the other lock when the first thing has gone."""

        @contextlib.contextmanager
        def task(self, label: str, total: int | None = None) -> Iterator[Task]:
            yield self if label.startswith("remove") else Silent()

        def advance(self, amount: int) -> None:
            two.lockfile.write_bytes(text)

    with contextlib.closing(Store(one.store)) as store:
        done = collect(store, Wishes(), Writing())
    assert len(done.removed) == 200 and done.spared == ()
    assert held(one) == needed


def test_it_makes_room_on_a_full_disk(doomed: TidyProject) -> None:
    """That is when it is needed most."""
    command = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", sys.executable, "-m", "layerbuild", "gc", "--json"]
    done = subprocess.run(command, cwd=doomed.root, env=doomed.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["removed"]) == 1500
    doomed.run("build")


@pytest.mark.parametrize("nonsense", [b"[" * 100_000, b"\xff", b"7", b'[7, {"blob": []}]', b"{}"])
def test_a_lock_may_name_what_makes_no_sense(worker: TidyProject, nonsense: bytes) -> None:
    with contextlib.closing(Store(worker.store)) as store:
        sha256 = store.add_document(nonsense)
        digest, _ = store.add_blob([nonsense])

    def mislead(lock: Any) -> None:
        (pin,) = (pin for pin in lock["layers"]["webui"]["pins"].values() if "listing" in pin)
        pin["listing"] = sha256
        lock["images"]["worker"]["base"] = {"reference": "x.example.com/y:1", "digest": digest}

    worker.edit_lock(mislead)
    before = held(worker)
    removed = {item["kind"] for item in worker.run("gc", "--json").json["removed"]}
    after = held(worker)
    assert removed <= {"files", "bytecode"} and {f"files:{sha256}", f"layers:{digest[7:]}"} <= set(after) <= set(before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-size", "lots"), "is no size"),
        (("--keep-last", "ages"), "no duration and no number"),
        (("--even-needed",), "--max-size"),
    ],
)
def test_what_makes_no_sense(project: TidyProject, arguments: tuple[str, ...], words: str) -> None:
    done = project.run("gc", *arguments, check=False)
    assert done.code == 2 and words in done.err


def test_what_was_used_lately_stays_and_a_limit_takes_no_more_than_it_must(project: TidyProject, web: Web) -> None:
    for number, name in enumerate(("a", "b", "c")):
        small(project.neighbour(name), web, name, seed=number)
    names = {item["title"][-len("a.safetensors")]: item["name"] for item in _items(project)}
    for number, name in enumerate("abc"):
        project.neighbour(name).lockfile.unlink()
        then = time.time() - (30 - 10 * number) * 86400
        os.utime(next(project.store.glob(f"files/*/{names[name]}")), (then, then))
    keeping = small(project.neighbour("d"), web, "d", seed=9)
    cases = {
        ("--keep-last", "15d"): "ab",
        ("--keep-last", "25d"): "a",
        ("--keep-last", "2"): "a",
        ("--max-size", "7M"): "a",
        ("--max-size", "5M"): "ab",
        ("--max-size", "1M"): "abc",
        ("--max-size", "1M", "--keep-last", "1"): "ab",
        ("--max-size", "1G"): "",
    }
    for arguments, expected in cases.items():
        done = keeping.run("gc", "--dry-run", "--json", *arguments).json
        gone = {item["name"] for item in done["removed"] if item["kind"] == "files"}
        assert gone == {names[name] for name in expected}, arguments
    said = keeping.run("gc", "--dry-run", "--max-size", "1M").out
    assert "more than 1.0 MiB" in said and "--even-needed" in said
    # Whoever uses a thing makes it young: this one would be fetched again.
    keeping.write({"layers/l.yaml": (project.root.parent / "a/layers/l.yaml").read_text()}).run("lock")
    assert keeping.run("gc", "--dry-run", "--json", "--keep-last", "25d").json["removed"] == []


def _items(project: TidyProject) -> list[Any]:
    items: list[Any] = project.run("store", "ls", "--json").json["items"]
    return [item for item in items if item.get("title")]


def test_what_is_removed_is_told_of_largest_first(project: TidyProject, web: Web) -> None:
    small(project.neighbour("a"), web, "little", seed=1).lockfile.unlink()
    small(project.neighbour("b"), web, "large", seed=2, size=5 << 20).lockfile.unlink()
    kept = small(project, web, "kept", seed=3)
    lines = kept.run("gc", "--dry-run").out.splitlines()
    assert all(len(line) <= 80 for line in lines if "note: " not in line)
    names = [line for line in lines if ".safetensors " in line]
    assert ["large" in names[0], "little" in names[1], len(names)] == [True, True, 2]
    assert any("7.0 MiB would be freed" in line for line in lines)
    assert any("7.0 MiB freed" in line for line in kept.run("gc").out.splitlines())


def test_a_push_under_way_ends_well_whatever_is_collected(worker: TidyProject, registry: Front) -> None:
    """The store is emptied again and again, as far as that can be, from before it begins until it is done."""
    age(worker)
    registry.rule("PUT", "/uploads/", pause=0.2, times=1000)
    registry.rule("POST", "/uploads/", pause=0.1, times=1000)
    codes: list[int] = []
    command = ("push", f"{registry.host}/{registry.prefix}")
    push = threading.Thread(target=lambda: codes.append(worker.apart().run(*command).code))
    push.start()
    while push.is_alive():
        worker.run("gc", "--all", "--max-size", "0", "--even-needed")
    push.join()
    assert codes == [0]
    images = registry_images(registry.backend.port, [f"{registry.prefix}/worker"])
    assert len(images) == 1
    worker.run("store", "verify")


def test_a_download_under_way_is_left_alone(project: TidyProject, web: Web) -> None:
    one = small(project, web, "one", seed=1)
    hold = threading.Event()
    data = safetensors(BIG, seed=5)
    web.route("/slow.safetensors", Answer(body=data), Answer(body=data, hold=(4 << 20, hold)))
    other = project.neighbour()
    other.write(
        {
            "layers/l.yaml": f"sd: {{kind: model, type: checkpoint, source: '{web.url}/slow.safetensors'}}\n",
            "recipes/r.yaml": "name: slow\nbase: scratch\nwebui: {root: /webui}\nlayers: [sd]\n",
        }
    ).run("lock")
    one.run("gc", "--max-size", "0", "--even-needed")
    codes: list[int] = []
    build = threading.Thread(target=lambda: codes.append(other.apart().run("build").code))
    build.start()
    while not other.beginnings() or other.beginnings()[0].stat().st_size < 2 << 20:
        assert build.is_alive()
        time.sleep(0.02)
    one.run("gc", "--max-size", "0", "--even-needed", "--all")
    assert len(other.beginnings()) == 1
    hold.set()
    build.join()
    assert codes == [0]
    assert len(web.asked("/slow.safetensors", "GET")) == 2, "once to lock it, once to build"


def test_a_project_that_is_killed_harms_no_other_one(project: TidyProject, web: Web) -> None:
    """Two build into one store; one is killed in the middle, and the store is emptied beside the other."""
    hold = threading.Event()
    projects, codes = [project.neighbour(name) for name in ("killed", "living")], []
    for number, each in enumerate(projects):
        data = safetensors(BIG, seed=number)
        address = web.route(f"/{number}.safetensors", Answer(body=data), Answer(body=data, hold=(4 << 20, hold)))
        layer = f"sd: {{kind: model, type: checkpoint, source: '{address}'}}\n"
        recipe = "name: one\nbase: scratch\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"
        each.write({"layers/l.yaml": layer, "recipes/r.yaml": recipe}).run("lock")
    project.neighbour("x").run("gc", "--all", "--max-size", "0", "--even-needed")
    killed, living = projects
    command = [sys.executable, "-m", "layerbuild", "build"]
    build = threading.Thread(target=lambda: codes.append(living.apart().run("build").code))
    with subprocess.Popen(command, cwd=killed.root, env=killed.environ, stdout=-3, stderr=-3) as process:
        build.start()
        while len([path for path in project.beginnings() if path.stat().st_size >= 2 << 20]) < 2:
            assert build.is_alive() and process.poll() is None
            time.sleep(0.02)
        process.kill()
    killed.lockfile.unlink()
    living.run("gc", "--all", "--max-size", "0", "--even-needed")
    hold.set()
    build.join()
    assert codes == [0]
    living.run("store", "verify")
    living.run("build", "--check")
    # What the dead one left is nobody's.
    living.run("gc")
    assert project.beginnings() == []


def test_what_broke_off_is_kept_for_who_needs_it_and_else_goes(project: TidyProject, web: Web) -> None:
    data = safetensors(BIG, seed=5)
    web.route("/sd.safetensors", Answer(body=data), Answer(body=data, cut=4 << 20))
    project.write(
        {
            "layers/l.yaml": f"sd: {{kind: model, type: checkpoint, source: '{web.url}/sd.safetensors'}}\n",
            "recipes/r.yaml": "name: slow\nbase: scratch\nwebui: {root: /webui}\nlayers: [sd]\n",
        }
    ).run("lock")
    project.run("gc", "--max-size", "0", "--even-needed")
    project.interrupt(
        "build", when=lambda: bool(project.beginnings()) and project.beginnings()[0].stat().st_size > 1 << 20
    )
    assert len(project.beginnings()) == 1
    project.run("gc")
    assert len(project.beginnings()) == 1
    project.run("gc", "--max-size", "0", "--even-needed")
    assert project.beginnings() == []


@pytest.fixture
def doomed(project: TidyProject, web: Web) -> Iterator[TidyProject]:
    """A project with a store of much that nobody needs."""
    kept = small(project, web, "kept", seed=1)
    for number in range(1500):
        name = f"{number:064x}"
        path = project.store / "files" / name[:2] / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    age(project)
    yield kept


def test_killed_at_any_moment_it_leaves_a_whole_store(doomed: TidyProject) -> None:
    command = [sys.executable, "-m", "layerbuild", "gc"]
    rubbish = doomed.store / "files"
    for _ in range(4):
        count = len(list(rubbish.glob("*/*")))
        with subprocess.Popen(command, cwd=doomed.root, env=doomed.environ, stdout=-3, stderr=-3) as process:
            while len(list(rubbish.glob("*/*"))) == count and process.poll() is None:
                time.sleep(0.001)
            process.kill()
    done = doomed.run("gc", "--json").json
    assert done["left"] == sum(held(doomed).values())
    assert len(_items(doomed)) == 1 and not [name for name in held(doomed) if name.startswith("files:0000")]
    doomed.run("store", "verify")
    doomed.run("build", "--check")


def test_two_collections_at_once_take_turns(doomed: TidyProject) -> None:
    results: list[Any] = []
    runs = [threading.Thread(target=lambda: results.append(doomed.apart().run("gc", "--json").json)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(len(result["removed"]) for result in results) == [0, 1500]
    assert len(_items(doomed)) == 1


def test_json_is_one_document(worker: TidyProject) -> None:
    for arguments in (("gc", "--json"), ("gc", "--dry-run", "--json"), ("store", "--json"), ("store", "ls", "--json")):
        assert isinstance(json.loads(worker.run(*arguments).out), dict)

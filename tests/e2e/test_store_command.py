"""`layerbuild store`: what is said of a store, and what is done about damage."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.gitrepo import GitRepo
from fixtures.project import BIG, safetensors
from fixtures.tidyproject import TidyProject
from fixtures.web import Web
from layerbuild.execute.checkup import check, repair
from layerbuild.progress import Silent
from layerbuild.store import Store


@pytest.fixture
def built(tidy: TidyProject, web: Web) -> TidyProject:
    """A project with a fetched model and a git tree, built."""
    address = web.route("/sd.safetensors", safetensors(BIG, seed=1))
    commit = GitRepo(tidy.root / "git").commit({"webui.py": b"print()\n"})
    project = tidy
    project.write(
        {
            "layers/l.yaml": f"webui: {{kind: webui, source: 'git+file:git@{commit}'}}\n"
            f"sd: {{kind: model, type: checkpoint, source: '{address}'}}\n",
            "recipes/r.yaml": "name: worker\nbase: scratch\nwebui: {root: /webui}\nlayers: [webui, sd]\ntags: [v1]\n",
        }
    ).run("lock")
    project.run("build")
    return project


def stored(project: TidyProject) -> Path:
    """Where the model lies."""
    return max(project.store.glob("files/*/*"), key=lambda path: path.stat().st_size)


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")


def test_summary(built: TidyProject) -> None:
    text = built.run("store").out
    for words in (
        str(built.store),
        "free on its disk",
        "git repositories",
        "total",
        "NEEDS",
        "remembered: 4 l",
    ):
        assert words in text
    value = built.run("store", "--json").json
    assert value["path"] == str(built.store) and value["size"] == value["needed"] > BIG
    assert value["projects"] == {str(built.root): value["needed"]} and value["gone"] == []
    assert sum(kind["size"] for kind in value["kinds"].values()) == value["size"]
    assert built.run("store", "path").out == f"{built.store}\n"


def test_one_thing(built: TidyProject) -> None:
    path = stored(built)
    for name in (path.name[:12], path.name, f"sha256:{path.name}"):
        text = built.run("store", "show", name).out
        assert str(path) in text and f"needed by {built.root}" in text and "sd.safetensors" in text
    (item,) = built.run("store", "show", path.name, "--json").json["items"]
    assert item["path"] == str(path) and item["needed_by"] == [str(built.root)] and item["size"] > BIG
    built.run("store", "show", "0" * 20, check=False).failed(2, "0" * 20, "store ls")
    built.lockfile.unlink()
    assert "needed by nobody" in built.run("store", "show", path.name).out


def test_list(built: TidyProject) -> None:
    text = built.run("store", "ls").out
    assert stored(built).name[:12] in text and "not listed" in text
    assert built.run("store", "ls", "--unneeded", "--json").json == {"items": []}
    built.lockfile.unlink()
    items = built.run("store", "ls", "--unneeded", "--json").json["items"]
    assert stored(built).name in {item["name"] for item in items}
    assert not any(item["needed"] for item in items)


def test_what_is_sound_is_left_as_it_is(built: TidyProject) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.store.glob("[fb]*/*/*")}
    value = built.run("store", "verify", "--json").json
    assert value["damaged"] == [] and value["dangling_rows"] == {} and value["size"] > BIG
    assert "0 things removed, 0 rows forgotten" in built.run("store", "repair").out
    assert {path: path.stat().st_mtime_ns for path in built.store.glob("[fb]*/*/*")} == before


def test_damage_is_found_told_of_and_repaired(built: TidyProject, web: Web) -> None:
    model = stored(built)
    layer = next(built.store.glob("blobs/*/*"))
    repository = next(built.store.glob("git/*/HEAD")).parent
    (pack,) = repository.glob("objects/pack/*.pack")
    for path in (model, layer):
        damage(path) if path == model else path.write_bytes(b"no layer")
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:-30] + b"x" * 30)
    failed = built.run("store", "verify", check=False).failed(1, "3 things in the store are damaged", "store repair")
    for name in (model.name, layer.name, repository.name):
        assert name[:12] in failed.out
    assert model.exists() and layer.exists() and pack.exists()
    done = built.run("store", "repair").out
    assert "3 things removed" in done and f"{built.root} needs it" in done
    assert not model.exists() and not layer.exists() and not repository.exists()
    built.run("store", "verify")
    asked = len(web.requests)
    built.run("push", "oci:out")
    assert len(web.requests) > asked and model.exists()
    built.run("store", "verify")


def test_what_somebody_has_anew_meanwhile_is_not_removed(built: TidyProject) -> None:
    """Of a large store, it takes an hour from finding a damage to repairing it."""
    repository = next(built.store.glob("git/*/HEAD")).parent
    (pack,) = repository.glob("objects/pack/*.pack")
    sound = {path: path.read_bytes() for path in (stored(built), pack)}
    with contextlib.closing(Store(built.store)) as store:
        for path in sound:
            path.chmod(0o600)
            damage(path)
        found = check(store, built.environ, Silent())
        assert len(found.damaged) == 2
        for path, data in sound.items():
            path.write_bytes(data)
        repair(store, found, built.environ, Silent())
    assert all(path.exists() for path in sound)
    built.run("store", "verify")


def test_rows_of_what_is_not_there_are_forgotten(built: TidyProject) -> None:
    stored(built).unlink()
    found = built.run("store", "verify", "--json").json["dangling_rows"]
    assert found == {"names": 1}
    assert built.run("store", "repair", "--json").json["removed_rows"] == 1
    assert built.run("store", "verify", "--json").json["dangling_rows"] == {}


def test_a_database_that_is_none_is_removed_unless_it_is_used(built: TidyProject) -> None:
    for name in ("store.db-wal", "store.db-shm"):
        (built.store / name).unlink(missing_ok=True)
    (built.store / "store.db").write_bytes(b"no database" * 1000)
    built.run("store", check=False).failed(1, "is damaged", "store repair")
    holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    user = str(built.store / "users" / "somebody")
    with subprocess.Popen([sys.executable, "-c", holder, user], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline()
        built.run("store", "repair", check=False).failed(2, "another layerbuild uses it")
        process.communicate(b"")
    done = built.run("store", "repair").out
    assert "is gone: receipts and facts are learnt again" in done
    assert "0 projects are still known: run a command in each" in done
    built.run("store", "verify")
    assert "needed by nobody" not in built.run("store", "show", stored(built).name).out
    built.run("push", "oci:out")


def test_a_database_that_is_damaged_inside_is_found(built: TidyProject) -> None:
    connection = sqlite3.connect(built.store / "store.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.executemany("INSERT INTO facts VALUES (?, '{}')", [(f"{n:064x}",) for n in range(500)])
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path = built.store / "store.db"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2))
    nowhere = built.neighbour("nowhere")
    nowhere.run("store", "verify", check=False).failed(1, "store.db is damaged", "store repair")
    # Which projects there are is saved: else 'gc' would take what they need.
    assert "1 project is still known" in nowhere.run("store", "repair").out
    nowhere.run("store", "verify")
    assert nowhere.run("gc", "--json").json["projects"] == [str(built.root)]


def test_names_of_things_are_no_orders_to_a_terminal(built: TidyProject) -> None:
    with sqlite3.connect(built.store / "store.db") as connection:
        connection.execute("UPDATE names SET name = ?", ("\x1b[2Jharmless",))
    connection.close()
    for command in (("ls",), ("show", stored(built).name)):
        out = built.run("store", *command).out
        assert "\x1b" not in out and "harmless" in out

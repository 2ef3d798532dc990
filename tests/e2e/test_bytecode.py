"""The webui's sources are compiled where the recipe names its Python, and imported from what was compiled."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.readers import layout_manifests, members
from fixtures.gitrepo import GitRepo
from fixtures.project import Project
from layerbuild.pyc import cached_path

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
VARIABLE = f"LAYERBUILD_PYTHON_{PYTHON.replace('.', '_')}"
TAG = sys.implementation.cache_tag
CACHED = f"webui/modules/__pycache__/m.{TAG}.pyc"
FILES = {
    "webui.py": b"import modules.m\nprint(modules.m.WHERE)\n",
    "modules/m.py": b"WHERE = (lambda: 0).__code__.co_filename\n",
    "modules/__pycache__/m.cpython-310.pyc": b"of another Python, or of this one and void",
    f"modules/__pycache__/m.{TAG}.pyc": b"of another Python, or of this one and void",
    "modules/two.py": b"print 'Python 2'\n",
    "notes.txt": b"no source",
}


@pytest.fixture
def source(project: Project) -> str:
    commit = GitRepo(project.root / "git" / "webui").commit(FILES)
    return f"git+file:git/webui@{commit}"


def declare(project: Project, source: str, **recipe: Any) -> None:
    text = {"name": "worker", "webui": {"root": "/webui"}, "layers": ["webui"], "tags": ["v1"], "compression": "gzip"}
    layers = {"webui": {"kind": "webui", "source": source}}
    project.write({"layers/l.yaml": yaml.safe_dump(layers), "recipes/r.yaml": yaml.safe_dump({**text, **recipe})})
    project.run("lock")


def files(project: Project) -> dict[str, bytes]:
    """The image's files, from a layout."""
    shutil.rmtree(project.root / "out", ignore_errors=True)
    project.run("push", "oci:out")
    (manifest,) = layout_manifests(project.root / "out").values()
    return {path: data for path, (info, data) in members(project.root / "out", manifest).items() if info.isreg()}


def keys(project: Project) -> list[str]:
    return [line.split()[-1] for image in project.lock["images"].values() for line in image["layers"]]


def test_sources_are_imported_from_what_was_compiled(project: Project, source: str, tmp_path: Path) -> None:
    declare(project, source, python=PYTHON)
    found = files(project)
    assert found.keys() == {
        *("webui/webui.py", "webui/modules/m.py", "webui/modules/two.py", "webui/notes.txt"),
        *(f"webui/__pycache__/webui.{TAG}.pyc", CACHED),
    }
    for path, data in found.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    # Nothing of the source is read any more: not its time, not what it says.
    (tmp_path / "webui/modules/m.py").write_bytes(b"raise SystemExit('compiled anew')\n")
    os.utime(tmp_path / "webui/modules/m.py", (1, 1))
    told = subprocess.run([sys.executable, tmp_path / "webui/webui.py"], capture_output=True, check=True, text=True)
    assert told.stdout.endswith("/webui/modules/m.py\n")


def test_what_is_no_source_of_that_python_is_named(project: Project, source: str) -> None:
    declare(project, source, python=PYTHON)
    assert "/webui/modules/two.py" in project.run("build").err
    assert "two.py" not in project.run("build").err


def test_without_bytecode_a_layer_is_what_it_was(project: Project, source: str) -> None:
    declare(project, source)
    before, found = keys(project), files(project)
    assert found[CACHED] == FILES[CACHED.removeprefix("webui/")]
    declare(project, source, python=PYTHON, bytecode="none")
    assert keys(project) == before
    declare(project, source, python=PYTHON)
    assert keys(project) != before
    declare(project, source, python=PYTHON, bytecode="unchecked-hash")
    compiled = keys(project)
    declare(project, source, python=".".join(map(str, sys.version_info[:3])))
    assert keys(project) not in (before, compiled)


def test_nothing_is_compiled_twice(project: Project, source: str, tmp_path: Path) -> None:
    declare(project, source, python=PYTHON)
    project.run("build")
    # Another owner is another layer of the same sources; and nobody can compile any more.
    declare(project, source, python=PYTHON, owner={"uid": 7})
    nobody = {VARIABLE: str(tmp_path / "none")}
    assert project.run("build", env=nobody).code == 0
    declare(project, source, python=PYTHON, webui={"root": "/elsewhere"})
    project.run("build", env=nobody, check=False).failed(1, "no Python")


def test_damaged_bytecode_is_made_anew(project: Project, source: str) -> None:
    declare(project, source, python=PYTHON)
    before = files(project)
    stored = [path for path in (project.store / "files").rglob("*") if path.is_file()]
    (compiled,) = (
        path for path in stored if path.read_bytes()[:4] == MAGIC_NUMBER and b"co_filename" in path.read_bytes()
    )
    compiled.write_bytes(compiled.read_bytes()[:-1] + b"!")
    declare(project, source, python=PYTHON, owner={"uid": 7})
    assert files(project) == before


def test_another_patch_release_that_compiles_otherwise_is_found_out(project: Project, source: str) -> None:
    declare(project, source, python=PYTHON)
    project.run("build")
    with sqlite3.connect(project.store / "store.db") as database:
        database.execute("UPDATE bytecode SET sha256 = NULL WHERE path LIKE '%webui.py'")
    database.close()
    shutil.rmtree(project.store / "blobs")
    failed = project.run("push", "oci:out", check=False).failed(1, "not reproducible")
    assert "patch release" in failed.err


def test_who_has_no_such_python_is_told_so(project: Project, source: str) -> None:
    text = {"name": "other", "layers": [], "tags": ["v1"]}
    project.write({"recipes/other.yaml": yaml.safe_dump(text)})
    missing = f"{PYTHON}.999"
    declare(project, source, python=missing)
    assert f"no Python {missing}" in project.run("lock").out
    failed = project.run("build", check=False).failed(1, f"no Python {missing}")
    assert "bytecode: none" in failed.err and VARIABLE in failed.err


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"bytecode": "unchecked-hash"}, "nobody says which Python"),
        ({"python": "2.7"}, "3.8 to 3.13"),
        ({"python": "3.10; rm"}, "3.8 to 3.13"),
        ({"python": 3.1}, "python"),
        ({"python": PYTHON, "bytecode": "checked-hash"}, "bytecode"),
    ],
)
def test_what_a_recipe_may_not_say(project: Project, source: str, recipe: dict[str, Any], message: str) -> None:
    declare(project, source)
    text = {"name": "worker", "webui": {"root": "/webui"}, "layers": ["webui"], **recipe}
    project.write({"recipes/r.yaml": yaml.safe_dump(text)})
    project.run("lock", check=False).failed(2, message)


def test_an_audit_of_the_project_compiles_nothing(project: Project, source: str) -> None:
    declare(project, source, python=PYTHON)
    told = project.run("audit", "worker", env={VARIABLE: "/none"}, check=False)
    assert told.out.startswith("worker") and "no Python" not in told.err


def test_where_python_looks() -> None:
    assert cached_path("/a/b.py", "cpython-310") == "/a/__pycache__/b.cpython-310.pyc"
    assert cached_path("b.py", "cpython-310") == "__pycache__/b.cpython-310.pyc"

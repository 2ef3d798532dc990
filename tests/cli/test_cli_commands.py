"""What a user of the command line sees: help, exit codes, JSON, and no traceback ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures.gitrepo import GitRepo
from fixtures.inprocess import Run
from fixtures.project import BIG, Project, safetensors
from fixtures.tidyproject import TidyProject
from layerbuild.cli.main import _COMMANDS
from layerbuild.model import Blob, Receipt
from layerbuild.store import Store

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
webui: {kind: files, files: {/webui/x: {content: hi}}}
"""
_RECIPE = "name: one\nwebui: {root: /webui, provided_by: base}\nbase: 'oci:base:b:1'\nlayers: [sd, webui]\n"
_PLAIN = "name: one\nlayers: [webui]\ntags: [v1]\n"


@pytest.fixture
def plain(project: Project) -> Project:
    """An image of one small layer."""
    return project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _PLAIN})


class TestHelp:
    @pytest.mark.parametrize("command", [[], *([name] for name in _COMMANDS)], ids=lambda c: " ".join(c) or "group")
    def test_every_command_has_one(self, project: Project, command: list[str]) -> None:
        found = project.run(*command, "--help")
        assert found.out.startswith("Usage: ") and found.err == ""
        assert all(len(line) <= 100 for line in found.out.splitlines())

    def test_group_lists_every_command(self, project: Project) -> None:
        out = project.run("-h").out
        assert all(f"\n  {name} " in out for name in _COMMANDS)

    def test_imports_nothing_heavy(self, project: Project) -> None:
        command = [sys.executable, "-X", "importtime", "-m", "layerbuild", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=project.environ)
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert "click" in imported
        heavy = {"pydantic", "requests", "jinja2", "yaml", "oras", "rich", "sqlite3", "zstandard", "platformdirs"}
        assert not heavy & imported

    def test_commands_import_neither_bars_nor_oras_without_need(self, plain: Project) -> None:
        command = [sys.executable, "-X", "importtime", "-m", "layerbuild", "lock"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain.environ, cwd=plain.root)
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert "pydantic" in imported and not {"rich", "zstandard"} & imported

    def test_version(self, project: Project) -> None:
        assert project.run("--version").out.startswith("layerbuild")


def _run(project: Project, command: list[str], out: Any) -> subprocess.CompletedProcess[bytes]:
    environ, root = project.environ, project.root
    return subprocess.run(command, cwd=root, env=environ, stdout=out, stderr=subprocess.PIPE, check=False)


class TestExitCodes:
    def test_unknown_command_and_option(self, project: Project) -> None:
        for arguments in (["nonsense"], ["lock", "--nonsense"], ["push"]):
            found = project.run(*arguments, check=False).failed(2, "--help' ")
            assert found.out == ""

    def test_no_project(self, project: Project, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        project.run("-C", str(tmp_path / "empty"), "lock", check=False).failed(2)
        project.run("-C", str(tmp_path / "missing"), "lock", check=False).failed(2, "is not a directory")

    def test_project_from_anywhere(self, plain: Project, tmp_path: Path) -> None:
        (plain.root / "deep/er").mkdir(parents=True)
        plain.run("-C", str(plain.root / "deep/er"), "lock")
        assert plain.lockfile.exists()
        command = [sys.executable, "-m", "layerbuild", "--project", str(plain.root), "push", "oci:here", "--json"]
        subprocess.run(command, cwd=tmp_path, env=plain.environ, check=True, capture_output=True)
        assert (tmp_path / "here/index.json").exists()

    def test_missing_lock_and_drift(self, plain: Project) -> None:
        plain.run("build", check=False).failed(2, "layerbuild lock")
        plain.run("lock")
        plain.run("lock", "--check")
        plain.write({"recipes/r.yaml": _PLAIN + "config: {cmd: [/x]}\n"})
        found = plain.run("lock", "--check", "--json", check=False).failed(3)
        assert found.json["drift"]

    def test_unknown_image_and_names(self, plain: Project) -> None:
        plain.run("lock")
        plain.run("push", "oci:out", "oen", check=False).failed(2, "no image is called", "one")
        for option in ("--update", "--repack"):
            plain.run("lock", option, "nobody", check=False).failed(2, "nobody")

    def test_store_that_cannot_be_used(self, plain: Project, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        plain.run("lock")
        found = plain.run("build", env={"LAYERBUILD_STORE": str(tmp_path / "file")}, check=False)
        found.failed(1, "LAYERBUILD_STORE")
        (plain.store / "store.db").write_bytes(b"no database" * 1000)
        for name in ("store.db-wal", "store.db-shm"):
            (plain.store / name).unlink(missing_ok=True)
        plain.run("build", check=False).failed(1, "store.db is damaged", "remove it")

    def test_full_output(self, plain: Project) -> None:
        plain.run("lock")
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "layerbuild", "plan", "--json"]
            done = _run(plain, command, full)
        assert done.returncode != 0 and b"Traceback" not in done.stderr
        assert b"No space left on device" in done.stderr

    def test_reader_that_went_away(self, plain: Project) -> None:
        plain.run("lock")
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "layerbuild", "plan", "--json"]
        done = _run(plain, command, write)
        os.close(write)
        assert done.returncode == 1 and done.stderr == b""

    def test_streams_that_are_closed(self, plain: Project) -> None:
        plain.run("lock")
        for closed in (">&-", "2>&-", ">&- 2>&- <&-"):
            done = _run(plain, ["sh", "-c", f'"$0" -m layerbuild plan {closed}', sys.executable], subprocess.PIPE)
            assert (done.returncode, done.stderr) == (0, b"") and bool(done.stdout) == (closed == "2>&-")

    def test_debug_shows_where(self, plain: Project) -> None:
        found = plain.run("--debug", "build", check=False)
        assert found.code == 2 and "Traceback" in found.err and "LockError" in found.err


def test_json_is_all_that_stands_on_standard_output(plain: Project) -> None:
    runs = (
        ["lock"],
        ["lock", "--check"],
        ["plan"],
        ["plan", "--to", "oci:out"],
        ["build"],
        ["push", "oci:out"],
        ["push", "oci:out", "one"],
    )
    for arguments in runs:
        found = plain.run(*arguments, "--json")
        assert isinstance(found.json, dict), arguments
    assert {"properties", "$schema"} <= set(json.loads(plain.run("schema").out))
    assert "$schema" in json.loads(plain.run("schema", "layers").out)


def test_a_project_whose_directory_is_no_text(tmp_path: Path, run: Run) -> None:
    """Names of files are bytes. What one project is called must not keep others from their store."""
    name = os.fsdecode(b"no \xff text\n\x1b[31m")
    project = TidyProject(tmp_path / name, tmp_path / "store")
    project.quick = run
    commit = GitRepo(project.root / "git").commit({"webui.py": b"print()\n"})
    layer = f"webui: {{kind: webui, source: 'git+file:git@{commit}'}}\n"
    recipe = "name: one\nbase: scratch\nwebui: {root: /webui}\nlayers: [webui]\ntags: [v]\n"
    project.write({"layers/l.yaml": layer, "recipes/r.yaml": recipe})
    for command in ("lock", "build", "plan", "push oci:out", "gc", "store ls", "report --html x.html"):
        project.run(*command.split())
    # In processes of their own: standard output refuses what is no text.
    shown = project.apart().run("store").out
    assert "dcff text\\n\\x1b[31m" in shown and "\x1b" not in shown
    assert str(project.root) in project.apart().run("store", "--json").json["projects"]


def test_a_terminal_that_knows_few_characters(plain: Project) -> None:
    name = "x" * 90
    plain.write({"layers/m.yaml": f"{name}: {{kind: files, files: {{/a: {{content: a}}}}}}\n"})
    plain.write({"recipes/r.yaml": f"name: one\nlayers: [{name}]\n"}).run("lock")
    environ = {"PYTHONIOENCODING": "latin-1"}
    assert r"x\u2026x" in plain.run("ls", "layers", env=environ).out


def test_tables_fit_80_columns(plain: Project) -> None:
    name = "a-very-long-name-of-an-image-" * 3 + "x"
    layer = "a-very-long-name-of-a-layer-" * 3 + "x"
    plain.write({"layers/l.yaml": f"{layer}: {{kind: files, files: {{/opt/x: {{content: x}}}}}}\n"})
    plain.write({"recipes/r.yaml": f"name: {name}\nlayers: [{layer}]\ntags: [v1]\n"})
    plain.run("lock")
    for arguments in (["plan"], ["plan", "--to", "oci:out"], ["build"]):
        out = plain.run(*arguments).out
        table = [line for line in out.splitlines() if "…" in line]
        assert table and max(map(len, table)) <= 80, out


def test_ci_leaves_the_lock_alone(plain: Project) -> None:
    plain.run("lock")
    before = plain.lockfile.read_bytes()
    plain.run("build", env={"CI": "true"})
    assert plain.lockfile.read_bytes() == before
    plain.run("build", env={"CI": "false"})
    assert plain.lockfile.read_bytes() != before


class TestRepack:
    """A blob that this machine's compressor does not make: the way out works."""

    def _of_another_version(self, project: Project, kind: str) -> str:
        found: list[str] = []

        def change(lock: object) -> None:
            assert isinstance(lock, dict)
            line = next(x for x in lock["images"]["one"]["layers"] if x.startswith(f"{kind}/"))
            receipt = next(r for key, r in lock["receipts"].items() if key.startswith(line.rpartition("@")[2]))
            blob = receipt["blobs"][0]
            blob["encoding"] = blob["encoding"].rpartition(":")[0] + ":0.0.1"
            blob["digest"] = "sha256:" + "f" * 64
            lock["images"]["one"].pop("manifest", None)
            found.append(line.partition("/")[2].rpartition("@")[0])

        project.edit_lock(change)
        return found[0]

    def _remember_in_the_store(self, project: Project) -> None:
        """As if this machine had packed that blob before it got another compressor."""
        store = Store(project.store)
        for key, receipt in project.lock["receipts"].items():
            blobs = tuple(Blob(**blob) for blob in receipt.get("blobs", ()))
            store.put_receipt(Receipt(key=key, diff_id=receipt["diff_id"], size=receipt["size"], blobs=blobs))
        store.close()

    @pytest.mark.parametrize("kind", ["files", "hash-cache"])
    def test_way_out(self, project: Project, kind: str) -> None:
        layers = _LAYERS.replace("webui: {kind: files", "note: {kind: files")
        recipe = "name: one\nwebui: {root: /w}\nlayers: [sd, note, ui]\ntags: [v1]\n"
        ui = "ui: {kind: webui, source: git+file:ui@main, version: 1.10.1}\n"
        project.write(
            {"layers/l.yaml": layers + ui, "recipes/r.yaml": recipe, "sd.safetensors": safetensors(BIG, {"a": "b"})}
        )
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
        project.write({"ui/x.py": "x\n"})
        for arguments in (["init", "-qb", "main"], ["add", "-A"], ["commit", "-qm", "x"]):
            subprocess.run([*git, *arguments], cwd=project.root / "ui", check=True, env=project.environ)
        project.run("lock")
        project.run("push", "oci:out")
        name = self._of_another_version(project, kind)
        found = project.run("push", "oci:other", check=False).failed(1, "0.0.1", f"lock --repack {name}")
        assert "Traceback" not in found.err
        # The same once more: the store has made a blob meanwhile, and the lock still decides.
        project.run("push", "oci:other", check=False).failed(1, f"lock --repack {name}")
        self._remember_in_the_store(project)
        project.run("lock", "--repack", name)
        project.run("push", "oci:other")
        project.run("lock", "--check")

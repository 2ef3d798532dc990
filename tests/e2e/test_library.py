"""The library, as a program uses it: the documentation's example, and what it promises."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import layerbuild
from fixtures.project import Project, safetensors

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/library.md"


@pytest.fixture
def works(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of two images, and its environment as this process's."""
    project.write(
        {
            "layers/all.yaml": "sd: {kind: model, type: checkpoint, source: file:sd.safetensors}\n",
            "recipes/one.yaml": "name: one\nwebui: {root: /webui}\nlayers: [sd]\nconfig: {labels: {tier: fast}}\n",
            "recipes/two.yaml": "name: two\nwebui: {root: /webui}\nlayers: [sd]\n",
            "sd.safetensors": safetensors(5000),
        }
    )
    monkeypatch.chdir(project.root)
    return project


def test_example_of_the_documentation_runs(project: Project) -> None:
    project.run("demo", "demo")
    (project.root / "demo/lockfile.yaml").unlink()
    (example,) = re.findall(r"<!-- run -->\n```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=project.root,
        env={**project.environ, "LAYERBUILD_STORE": str(project.root / "demo/.store")},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("pinned ") and "clean" in lines
    assert any(re.fullmatch(r"oci:images:gallery:demo sha256:[0-9a-f]{64}", line) for line in lines), lines
    assert (project.root / "images/index.json").exists() and not done.stderr


def test_page_names_what_is_offered() -> None:
    text = PAGE.read_text()
    methods = {name for name in vars(layerbuild.Project) if not name.startswith("_")} - {"root", "workspace"}
    assert {f"Project.{name}" for name in methods} == set(re.findall(r"`(Project\.\w+)\(", text))
    assert all(hasattr(layerbuild, name) for name in layerbuild.__all__)
    assert set(re.findall(r"layerbuild\.(\w+)\(", text)) <= {*layerbuild.__all__}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        layerbuild.nothing  # noqa: B018


def test_what_is_offered_is_what_type_checkers_see() -> None:
    tree = ast.parse(Path(layerbuild.__file__).read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == {*layerbuild.__all__}


def test_program_is_typed_by_what_is_installed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import layerbuild\n"
        "outcome = layerbuild.load().push('oci:x', options=layerbuild.MakeOptions(frozen=True))\n"
        "reveal_type(outcome.report.uploaded)\nlayerbuild.load().lock(update=3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent", str(program)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "MYPYPATH": str(ROOT / "builder"), "HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert 'Revealed type is "int"' in done.stdout.replace("builtins.int", "int"), done
    assert re.search(r'program.py:4: error: Unexpected keyword argument "update"', done.stdout), done
    assert (Path(layerbuild.__file__).parent / "py.typed").exists()


def test_a_life(works: Project) -> None:
    project = layerbuild.load(works.root / "recipes", environ=works.environ)
    assert project.root == works.root
    first = project.lock()
    assert first.changed and first.added == ("sd",) and not project.lock().changed
    assert not project.check_lock().drift
    assert {layer.title for layer in project.plan([]).layers} == set()
    assert [*project.plan("one").images] == [image.name for image in project.select("one")] == ["one"]
    built = project.build(["one"])
    built.refuse()
    assert built.lock_changed and [image.composed.name for image in built.images] == ["one"]
    assert {layer.status for layer in project.rebuild()} <= {"same", "no receipt"}
    fast = project.select(labels=["tier=fast"])
    pushed = project.push("oci:out", fast, layerbuild.MakeOptions(frozen=True))
    assert [image.name for image in pushed.report.images] == ["one"] and pushed.wanted == 1
    (report,) = project.audit(fast)
    (other,) = layerbuild.audit_image(f"oci:out:one:latest@{pushed.report.images[0].digest}", environ=works.environ)
    assert {f.id for f in report.findings} == {f.id for f in other.findings}
    project.workspace.store.close()


def test_ci_leaves_the_lock_alone_unless_it_is_told(works: Project) -> None:
    project = layerbuild.load(environ={**works.environ, "CI": "true"})
    project.lock()
    assert not project.build().lock_changed
    assert project.build(options=layerbuild.MakeOptions(frozen=False)).lock_changed
    project.workspace.store.close()


def test_what_fails_is_told_and_does_not_stop_the_rest(works: Project) -> None:
    works.write(
        {
            "layers/more.yaml": "gone: {kind: model, type: lora, source: file:gone.safetensors}\n",
            "recipes/three.yaml": "name: three\nwebui: {root: /webui}\nlayers: [gone]\n",
            "gone.safetensors": safetensors(100, seed=1),
        }
    )
    project = layerbuild.load(environ=works.environ)
    project.lock()
    (works.root / "gone.safetensors").unlink()
    outcome = project.push("oci:out")
    assert {image.name for image in outcome.report.images} == {"one", "two"}
    assert outcome.report.failed.keys() == {"three"}
    with pytest.raises(layerbuild.LayerbuildError, match=r"gone\.safetensors|three"):
        outcome.refuse()
    project.workspace.store.close()


def test_no_project_is_an_error_of_the_library(tmp_path: Path) -> None:
    with pytest.raises(layerbuild.LayerbuildError) as caught:
        layerbuild.load(tmp_path)
    assert caught.value.hint

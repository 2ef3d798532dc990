"""What people get wrong in layers/ and recipes/: said with file, line and way out, all at once, exit code 2."""

from __future__ import annotations

import pytest

from fixtures.project import Project, safetensors

_GOOD_LAYERS = "sd: {kind: model, type: checkpoint, source: file:sd.safetensors}\n"
_GOOD_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd]\n"
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("command", [["lock"], ["plan"], ["push", "oci:out"]], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param(
            {"layers/l.yaml": _GOOD_LAYERS + "x:\n  kind: model\n  type: vae\n  sorce: file:a\n"},
            ["layers/l.yaml:5", "x.sorce", "unknown key", "did you mean 'source'"],
            id="unknown-key",
        ),
        pytest.param(
            {"recipes/r.yaml": "webui: {root: /webui}\nlayers:\n- sd\n- sdd\n"},
            ["recipes/r.yaml:4", "no layer is called 'sdd'", "did you mean 'sd'"],
            id="undefined-layer",
        ),
        pytest.param(
            {"recipes/r.yaml": "webui: {root: /webui}\nlayers:\n- '{{ checkpiont }}'\nmatrix: {checkpoint: [sd]}\n"},
            ["recipes/r.yaml:3", "checkpiont"],
            id="undefined-variable",
        ),
        pytest.param({"layers/l.yaml": _BOMB}, ["layers/l.yaml", "alias"], id="alias-bomb"),
        pytest.param(
            {"recipes/r.yaml": "name: one\nlayers: [sd]\nname: two\n"},
            ["recipes/r.yaml:3", "name", "already stands in line 1"],
            id="duplicate-key",
        ),
        pytest.param({"recipes/r.yaml": "layers: [sd\n"}, ["recipes/r.yaml:", "not valid YAML"], id="no-yaml"),
        pytest.param({"recipes/r.yaml": b"\xff\xfe\x00"}, ["recipes/r.yaml", "UTF-8"], id="no-text"),
        pytest.param(
            {
                "layers/l.yaml": _GOOD_LAYERS
                + "ink: {kind: model, type: lora, source: file:ink.pt}\n"
                + "old: {kind: model, type: lora, source: file:ink.ckpt}\n",
                "recipes/r.yaml": "webui: {root: /webui}\nlayers: [ink, old]\n",
                "ink.pt": b"one",
                "ink.ckpt": b"other",
            },
            ["recipes/r.yaml:2", "ink and old are both 'lora/ink'", "filename"],
            id="two-models-with-one-key",
        ),
    ],
)
def test_declaration_is_refused(
    project: Project, files: dict[str, str | bytes], words: list[str], command: list[str]
) -> None:
    project.write({"layers/l.yaml": _GOOD_LAYERS, "recipes/r.yaml": _GOOD_RECIPE, "sd.safetensors": safetensors(10)})
    if "are both" in words[1] and command[0] != "lock":
        # Whether two models meet is seen once they are pinned: whoever has no lock is told that first.
        words = ["layerbuild lock"]
    project.write(files)
    project.run(*command, check=False).failed(2, *words)
    assert not project.lockfile.exists() and not (project.root / "out").exists()


def test_every_problem_of_a_run_is_told_at_once(project: Project) -> None:
    project.write(
        {
            "layers/a.yaml": "x: {kind: modell}\ny: {kind: files, files: {relative: file:a}}\n",
            "layers/b.yaml": "z: {kind: model, type: checkpoint, source: file:a, sha256: abc}\n",
            "recipes/r.yaml": "layers: [x]\ncolour: red\n",
            "recipes/s.yaml": "name: s\nname: t\n",
        }
    )
    found = project.run("lock", check=False)
    found.failed(2, "layers/a.yaml:1", "layers/a.yaml:2", "layers/b.yaml:1", "recipes/r.yaml:2", "recipes/s.yaml:2")
    assert "5 problems" in found.err


def test_wrong_command_lines(project: Project) -> None:
    project.write({"layers/l.yaml": _GOOD_LAYERS, "recipes/r.yaml": _GOOD_RECIPE, "sd.safetensors": safetensors(10)})
    project.run("lock")
    project.run("build", "wrker", check=False).failed(2, "wrker", "did you mean 'worker'")
    project.run("lock", "--update", "nothing", check=False).failed(2, "nothing")
    project.run("push", "oci:", check=False).failed(2)
    project.run("push", "UPPER/case/Name with spaces", check=False).failed(2)
    project.run("-C", "/nonexistent-directory", "lock", check=False).failed(2, "/nonexistent-directory")
    assert project.run("bulid", check=False).code == 2
    assert not (project.root / "out").exists()


def test_no_project_here(project: Project) -> None:
    (project.root / "recipes").rmdir()
    project.run("lock", check=False).failed(2, "no project here", "layerbuild demo")

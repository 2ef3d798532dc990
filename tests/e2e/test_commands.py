"""What has no project of its own: schema, demo, help, the module, and where failures of the shell go."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from e2e.readers import layout_manifests
from fixtures.project import Project

_REPOSITORY = Path(__file__).parents[2]


def _schema(project: Project, what: str) -> Any:
    schema = project.run("schema", what).json
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_schema_takes_the_repositorys_own_declarations(project: Project) -> None:
    layers, recipes = _schema(project, "layers"), _schema(project, "recipe")
    for validator, directory in ((layers, "layers"), (recipes, "recipes")):
        files = sorted((_REPOSITORY / directory).glob("*.yaml"))
        assert files
        for path in files:
            validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("layers", {"x": {"kind": "model", "type": "checkpoint", "sorce": "file:a"}}),
        ("layers", {"x": {"kind": "modell", "source": "file:a"}}),
        ("layers", {"x": {"kind": "model", "type": "checkpoint", "source": "file:a", "sha256": "abc"}}),
        ("recipe", {"layers": "sd"}),
        ("recipe", {"layers": ["sd"], "colour": "red"}),
        ("recipe", {"platform": "linux"}),
    ],
)
def test_schema_refuses_what_layerbuild_refuses(project: Project, what: str, value: Any) -> None:
    assert list(_schema(project, what).iter_errors(value))


def test_demo_works_where_nothing_is_set_up(project: Project) -> None:
    (project.root / "recipes").rmdir()
    done = project.run("demo", "here", env={"CI": "1"})
    assert "What was shared" in done.out
    assert set(layout_manifests(project.root / "here/images")) == {"gallery:demo", "photo-only:demo"}
    # Its store is its own, and it leaves what is there alone.
    assert not project.store.exists()
    project.run("demo", "here", check=False).failed(2, "here", "not empty")
    other = project.run("demo", "there", env={"TZ": "Asia/Tokyo", "LC_ALL": "C"})
    assert "shared" in other.out
    assert layout_manifests(project.root / "there/images") == layout_manifests(project.root / "here/images")


def test_help_names_every_command(project: Project) -> None:
    text = project.run("--help").out
    for command in ("lock", "plan", "build", "push", "schema", "demo"):
        assert f"  {command} " in text
        assert project.run(command, "--help").out.startswith("Usage: ")


def test_store_that_cannot_be_used(project: Project) -> None:
    project.write({"plain": "a file"})
    found = project.run("lock", check=False, env={"LAYERBUILD_STORE": str(project.root / "plain")})
    found.failed(1, "plain", "LAYERBUILD_STORE")
    assert not project.lockfile.exists()


def test_reader_that_goes_away(project: Project) -> None:
    command = [sys.executable, "-m", "layerbuild", "schema", "layers"]
    process = subprocess.Popen(
        command, env=project.environ, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) in (1, 141) and err == ""


def test_json_results_are_the_only_thing_on_standard_output(project: Project) -> None:
    project.write(
        {
            "layers/l.yaml": "note: {kind: files, files: {/opt/note: {content: hello}}}\n",
            "recipes/r.yaml": "name: worker\nlayers: [note]\ntags: [v1]\n",
        }
    )
    for command in (
        ["lock"],
        ["lock", "--check"],
        ["plan"],
        ["build"],
        ["plan", "--to", "oci:out"],
        ["push", "oci:out"],
    ):
        assert isinstance(json.loads(project.run(*command, "--json").out), dict), command

"""The recipes for CI do what they say: each of their scripts is run, against a registry that asks for a login."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.readers import tags
from fixtures.project import Project
from fixtures.registry import PASSWORD, USER, Front

ROOT = Path(__file__).resolve().parents[2]
_INSTALLS = re.compile(r".*(apt-get|pip install|-m venv).*\n?", re.MULTILINE)
_EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")


@pytest.fixture
def works(project: Project) -> Project:
    """The demo's project, whose images an audit finds nothing in."""
    project.run("demo", "demo")
    return Project(project.root / "demo", project.root / "demo/.store")


def _drift(project: Project) -> None:
    (project.root / "recipes/photo-only.yaml").unlink()


def _environ(project: Project, **more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "HOME": str(project.home), "LAYERBUILD_STORE": str(project.store), "CI": "true"}
    return {**own, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **more}


def _bash(script: str, project: Project, environ: Mapping[str, str], *arguments: str, code: int = 0) -> str:
    """What a script printed that ended with `code`. Nothing is installed by it: layerbuild is here."""
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script, "script", *arguments],
        env=dict(environ),
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done
    assert PASSWORD not in done.stdout + done.stderr
    return done.stdout


# --- the action --------------------------------------------------------------------------------------


class _Action:
    """Runs action.yml as GitHub's runner does: inputs by expressions, steps in turn, files that they write to."""

    def __init__(self, project: Project, **inputs: str) -> None:
        self.told = yaml.safe_load((ROOT / "action.yml").read_text())
        self.project = project
        assert inputs.keys() <= self.told["inputs"].keys()
        given = {
            name: inputs.get(name.replace("-", "_"), said["default"]) for name, said in self.told["inputs"].items()
        }
        self.values = {"github.action_path": str(ROOT), **{f"inputs.{name}": value for name, value in given.items()}}
        self.output = project.home / "output"
        self.output.touch()

    def steps(self) -> Iterator[dict[str, Any]]:
        """Those whose condition holds."""
        for step in self.told["runs"]["steps"]:
            parts = step.get("if", "github.action_path != ''").split(" && ")
            assert all(part.endswith(" != ''") for part in parts)
            if all(self.values[part.removesuffix(" != ''")] for part in parts):
                yield step

    def run(self) -> dict[str, str]:
        """The action's outputs."""
        for step in self.steps():
            assert "${{" not in step["run"], "a value that somebody else chose would be run"
            given = {
                name: _EXPRESSION.sub(lambda m: self.values[m[1]], text) for name, text in step.get("env", {}).items()
            }
            own = {"RUNNER_TEMP": str(self.project.home), "GITHUB_OUTPUT": str(self.output)}
            own["GITHUB_PATH"] = str(self.project.home / "path")
            _bash(_INSTALLS.sub("", step["run"]), self.project, {**_environ(self.project), **own, **given})
        found = re.findall(r"^(\w+)<<(\S+)\n(.*?)^\2$", self.output.read_text(), re.DOTALL | re.MULTILINE)
        return {name: text for name, _, text in found}


def test_action_logs_in_and_pushes_what_is_named(works: Project, login_registry: Front) -> None:
    prefix = f"{login_registry.host}/{login_registry.prefix}"
    action = _Action(works, destination=prefix, images="p*", username=USER, password=PASSWORD)
    told = action.run()["digests"]
    assert re.fullmatch(rf"{re.escape(prefix)}/photo-only:demo@sha256:[0-9a-f]{{64}}\n", told)
    assert tags(login_registry.root, f"{login_registry.prefix}/photo-only") == ["demo"]
    assert not (login_registry.root / f"docker/registry/v2/repositories/{login_registry.prefix}/gallery").exists()


def test_action_without_a_destination_only_checks_the_lock(works: Project) -> None:
    assert _Action(works).run() == {}
    # A workflow may give the login to every run.
    assert _Action(works, username=USER, password=PASSWORD).run() == {}
    _drift(works)
    check = list(_Action(works).steps())[-1]
    _bash(check["run"], works, _environ(works, PROJECT="."), code=3)


def test_every_input_is_used_and_reaches_scripts_as_a_variable() -> None:
    told = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = told["runs"]["steps"]
    used = {name for step in steps for text in step.get("env", {}).values() for name in _EXPRESSION.findall(text)}
    assert {f"inputs.{name}" for name in told["inputs"]} <= used
    for step in steps:
        assert all(f"${name}" in step["run"] or f"${{{name}" in step["run"] for name in step.get("env", {})), step


def test_workflow_of_the_documentation_fits_the_action() -> None:
    told = yaml.safe_load((ROOT / "action.yml").read_text())
    workflow = yaml.safe_load((ROOT / "docs/ci/github.yml").read_text())
    steps = workflow["jobs"]["images"]["steps"]
    inputs = [step.get("with", {}) for step in steps if step.get("uses", "").startswith("OWNER/layerbuild@")]
    assert len(inputs) == 2 and inputs[1]
    assert all(given.keys() <= told["inputs"].keys() for given in inputs)
    (audits,) = [step for step in steps if "run" in step]
    assert _EXPRESSION.findall(audits["env"]["DIGESTS"]) == [f"steps.layerbuild.outputs.{next(iter(told['outputs']))}"]


# --- GitLab, and any container -----------------------------------------------------------------------


def test_gitlab_job(works: Project, login_registry: Front) -> None:
    job = yaml.safe_load((ROOT / "docs/ci/gitlab.yml").read_text())["images"]
    assert all(_INSTALLS.fullmatch(line) for line in job["before_script"])
    environ = _environ(
        works,
        CI_REGISTRY=login_registry.host,
        CI_REGISTRY_IMAGE=f"{login_registry.host}/{login_registry.prefix}",
        CI_REGISTRY_USER=USER,
        CI_REGISTRY_PASSWORD=PASSWORD,
    )
    out = _bash("\n".join(job["script"]), works, environ)
    assert tags(login_registry.root, f"{login_registry.prefix}/gallery") == ["demo"]
    assert out.count("nothing worse than information") == 2
    assert len((works.root / job["artifacts"]["paths"][0]).read_text().splitlines()) == 2


def test_script_for_any_container(works: Project) -> None:
    script = _INSTALLS.sub("", (ROOT / "docs/ci/container.sh").read_text())
    out = _bash(script, works, _environ(works), "oci:images")
    assert out.count("nothing worse than information") == 2
    assert (works.root / "images/index.json").exists()


def test_second_run_on_an_empty_machine_moves_nothing(works: Project, registry: Front) -> None:
    """What the page promises: the lock and the registry are the cache."""
    script = _INSTALLS.sub("", (ROOT / "docs/ci/container.sh").read_text())
    prefix = f"{registry.host}/{registry.prefix}"
    _bash(script, works, _environ(works, CI=""), prefix)
    sent = registry.uploaded()
    shutil.rmtree(works.root / "models")
    _bash(script, works, _environ(works, LAYERBUILD_STORE=str(works.home / "other")), prefix)
    assert registry.uploaded() == sent


# --- before a commit ---------------------------------------------------------------------------------


def test_hook_runs_what_it_says(works: Project) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    files = re.compile(hook["files"])
    assert all(files.search(name) for name in ("recipes/gallery.yaml", "layers/a/b.j2", "lockfile.yaml"))
    assert not files.search("docs/lockfile.yaml") and not files.search("README.md")
    _bash(hook["entry"], works, _environ(works))
    _drift(works)
    _bash(hook["entry"], works, _environ(works), code=3)

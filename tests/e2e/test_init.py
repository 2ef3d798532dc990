"""`layerbuild init`: a project that loads, locks, and is never written over."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from e2e.test_add import tensors
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.inprocess import Run
from fixtures.project import Project
from layerbuild import images
from layerbuild.newproject import Plan
from layerbuild.project import load

CLIP = "32bd64288804d66eefd0ccbe215aa642df71cc41"
SD1 = "cond_stage_model.transformer.x"
SDXL = ("conditioner.embedders.0.transformer.x", "conditioner.embedders.1.x")


@pytest.fixture
def empty(project: Project) -> Project:
    """A directory that is no project yet."""
    for name in ("recipes", "layers"):
        (project.root / name).rmdir()
    return project


def read(project: Project, name: str) -> Any:
    return yaml.safe_load((project.root / name).read_text(encoding="utf-8"))


def lockable(project: Project, hub: Hub) -> None:
    """What the catalog's layers need of the world: the webui as a repository here, CLIP on a Hub."""
    names = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "config.json")
    made = hub.add("openai/clip-vit-large-patch14", files=dict.fromkeys(names, b"{}"))
    repo = hub._repos["models", "openai/clip-vit-large-patch14"]
    repo.commits[CLIP] = repo.commits[made]
    hub.add("stable-diffusion-v1-5/stable-diffusion-v1-5")
    project.environ["HF_ENDPOINT"] = hub.endpoint
    GitRepo(project.root / "git" / "webui").commit({"webui.py": b"x = 1\n"})
    webui = "webui-1.10.1: {kind: webui, version: 1.10.1, source: 'git+file:git/webui@main'}\n"
    project.write({"layers/webui.yaml": webui})


def test_an_empty_directory_becomes_a_project_that_locks(empty: Project, hub: Hub, run: Run) -> None:
    done = run(empty, "init", "--base", "scratch")
    assert done.code == 0 and done.out.endswith("next: layerbuild lock\n")
    assert sorted(p.relative_to(empty.root).as_posix() for p in empty.root.rglob("*") if p.is_file()) == [
        ".layerbuild/layers.schema.json",
        ".layerbuild/recipe.schema.json",
        "layers/models.yaml",
        "recipes/project.yaml",
    ]
    recipe = read(empty, "recipes/project.yaml")
    assert recipe["layers"] == ["webui-1.10.1", "clip-l14", "sd15", "runpod-worker"] and recipe["base"] == "scratch"
    assert read(empty, "layers/models.yaml") is None
    lockable(empty, hub)
    locked = run(empty, "lock")
    assert locked.code == 0, locked
    assert run(empty, "plan").code == 0


def test_the_default_base_is_a_real_one(empty: Project, run: Run) -> None:
    assert run(empty, "init", "images").code == 0
    recipe = read(empty, "images/recipes/images.yaml")
    assert recipe["base"].startswith("docker.io/pytorch/")
    assert len(images.expand(load(empty.root / "images"))) == 1


def test_sources_are_compiled_where_this_machine_can(empty: Project, run: Run) -> None:
    empty.environ["LAYERBUILD_PYTHON_3_10"] = "/nonexistent/python"
    assert run(empty, "init", "images").code == 0
    assert "python" not in read(empty, "images/recipes/images.yaml")
    text = (empty.root / "images/recipes/images.yaml").read_text(encoding="utf-8")
    assert "uv python install 3.10" in text
    plan = Plan(name="x", base="scratch", models=(), taken=(), git=False, compiles=True)
    assert yaml.safe_load(plan.texts()["recipes/x.yaml"])["python"] == "3.10"


def test_editors_find_schemas_that_fit(empty: Project, run: Run) -> None:
    empty.write({"models/a.safetensors": tensors(SD1), "models/b.safetensors": tensors(*SDXL)})
    run(empty, "init")
    for name in ("recipes/project.yaml", "layers/models.yaml"):
        first = (empty.root / name).read_text(encoding="utf-8").partition("\n")[0]
        prefix, _, place = first.partition("=")
        assert prefix == "# yaml-language-server: $schema"
        schema = json.loads((empty.root / name).parent.joinpath(place).read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(schema).validate(read(empty, name))


def test_models_that_are_there_are_declared(empty: Project, hub: Hub, run: Run) -> None:
    empty.write(
        {
            "models/night.safetensors": tensors(SD1),
            "models/Lora/ink.ckpt": b"pickle",
            "odd one.safetensors": tensors("q"),
            ".hidden/x.safetensors": tensors(SD1),
            "venv/x.safetensors": tensors(SD1),
            "bad {{ x }}.safetensors": tensors(SD1),
            "sd15.safetensors": tensors("lora_unet_x.lora_up.weight"),
        }
    )
    done = run(empty, "init", "--base", "scratch")
    layers, recipe = read(empty, "layers/models.yaml"), read(empty, "recipes/project.yaml")
    assert {name: (layer["type"], layer["source"]) for name, layer in layers.items()} == {
        "ink": ("lora", "file:models/Lora/ink.ckpt"),
        "night": ("checkpoint", "file:models/night.safetensors"),
        "sd15-2": ("lora", "file:sd15.safetensors"),
    }
    assert recipe["layers"] == ["webui-1.10.1", "clip-l14", "night", "ink", "sd15-2", "runpod-worker"]
    text = (empty.root / "layers/models.yaml").read_text(encoding="utf-8")
    assert "#   layerbuild add 'odd one.safetensors' --type" in text and "{{" not in text
    assert "found 4 model files" in done.out
    lockable(empty, hub)
    (empty.root / "models/Lora/ink.ckpt").write_bytes(b"\x80\x02}.")
    locked = run(empty, "lock")
    assert locked.code == 0, locked


def test_several_checkpoints_are_a_matrix(empty: Project, run: Run) -> None:
    empty.write({"a.safetensors": tensors(SD1), "b.safetensors": tensors(*SDXL), "sub/a.safetensors": tensors(SD1)})
    run(empty, "init")
    found = images.expand(load(empty.root))
    assert {image.name for image in found} == {"project-a", "project-b", "project-a-2"}
    recipe = read(empty, "recipes/project.yaml")
    assert recipe["matrix"] == {"checkpoint": ["a", "b", "a-2"]} and "vaeapprox-sdxl" in recipe["layers"]


def test_what_is_there_is_kept(empty: Project, run: Run) -> None:
    mine = {"recipes/mine.yaml": "name: mine\n", "layers/models.yaml": "# mine\n", ".gitignore": "x\n"}
    empty.write(mine | {"Dockerfile": "FROM x\n", "worker/gpu.Dockerfile": "FROM x\n"})
    subprocess.run(["git", "init", "-q", str(empty.root)], check=True)
    done = run(empty, "init", "--json")
    assert done.json == {
        "written": [".layerbuild/layers.schema.json", ".layerbuild/recipe.schema.json"],
        "kept": ["layers/models.yaml", "recipes/mine.yaml", ".gitignore"],
        "dockerfiles": ["Dockerfile", "worker/gpu.Dockerfile"],
    }
    assert {name: (empty.root / name).read_text() for name in mine} == mine
    again = run(empty, "init")
    assert "wrote" not in again.out and "layerbuild import Dockerfile" in again.out


@pytest.mark.parametrize("own", ["layers/models.yaml", "layers/mine.yaml"])
@pytest.mark.parametrize("recipe", [True, False])
def test_layers_that_are_there_are_not_joined_by_others(empty: Project, run: Run, own: str, recipe: bool) -> None:
    # Of the same name, or of the same file.
    empty.write({own: "ink: {kind: model, type: lora, source: 'file:a/ink.safetensors'}\n"})
    empty.write({"a/ink.safetensors": tensors(SD1), "b/ink.safetensors": tensors(SD1)})
    empty.write({"recipes/mine.yaml": "name: mine\nlayers: []\n"} if recipe else {})
    done = run(empty, "init")
    assert f"kept {own}" in done.out and "found 2 model files: layerbuild add" in done.out
    assert [p.name for p in (empty.root / "layers").iterdir()] == [Path(own).name]
    assert len(images.expand(load(empty.root))) == 1


def test_a_place_may_be_named_in_several_ways(empty: Project, run: Run) -> None:
    empty.write({"sd.1/x/y": "", "w/y": ""})
    assert run(empty, "init", "sd.1/x/..").code == 0
    assert run(empty, "-C", "w", "init").code == 0
    assert [(empty.root / p).is_file() for p in ("sd.1/recipes/sd.1.yaml", "w/recipes/w.yaml")] == [True, True]
    assert not (empty.root / "recipes").exists()


def test_only_files_are_models_and_not_all_of_very_many(empty: Project, run: Run) -> None:
    os.mkfifo(empty.root / "pipe.safetensors")
    (empty.root / "gone.safetensors").symlink_to("nowhere")
    empty.write({f"m{i}.ckpt": "" for i in range(203)})
    done = run(empty, "init")
    assert "found 200 model files: see layers/models.yaml (and 3 more, which are not in it)" in done.out
    text = (empty.root / "layers/models.yaml").read_text(encoding="utf-8")
    assert text.count("layerbuild add m") == 200 and "pipe" not in text + done.err and "gone" not in text + done.err


def test_a_repository_gets_a_gitignore(empty: Project, run: Run) -> None:
    subprocess.run(["git", "init", "-q", str(empty.root)], check=True)
    assert run(empty, "init", "sub").code == 0
    empty.write({"sub/models/a.safetensors": b"x"})
    ignored = subprocess.run(
        ["git", "check-ignore", "models/a.safetensors", "lockfile.yaml", "recipes/sub.yaml"],
        cwd=empty.root / "sub",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout.split() == ["models/a.safetensors"]


def test_a_file_is_no_place_for_a_project(empty: Project, run: Run) -> None:
    empty.write({"file": ""})
    run(empty, "init", "file").failed(2, "not a directory")


def test_from_nothing_to_an_image(empty: Project, hub: Hub, run: Run) -> None:
    """What the tutorial does: init, add, lock, push."""
    run(empty, "init", "--base", "scratch")
    lockable(empty, hub)
    hub.add("acme/night", lfs={"night.safetensors": tensors(SD1)})
    path = empty.root / "recipes/project.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("  - sd15\n", ""), encoding="utf-8")
    assert run(empty, "add", "https://huggingface.co/acme/night", "--to", "project").code == 0
    text = (empty.root / "layers/models.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server") and "layerbuild add" in text
    for command in (["lock"], ["push", "oci:out"]):
        done = run(empty, *command)
        assert done.code == 0, done
    assert Path(empty.root / "out/index.json").is_file()

"""`layerbuild import`: three Dockerfiles as people write them become projects that lock, and push."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.civitai import Civitai
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.inprocess import Run
from fixtures.project import Project, Result, safetensors
from fixtures.web import Web

EXAMPLES = Path(__file__).parents[1] / "dockerfile" / "examples"
PICKLE = b"\x80\x02}."
"""An empty dictionary."""

CLIP = "32bd64288804d66eefd0ccbe215aa642df71cc41"


@pytest.fixture
def built(project: Project, hub: Hub, civitai: Civitai, web: Web) -> Project:
    """A directory to import in, and everything that the examples fetch."""
    for name in ("recipes", "layers"):
        (project.root / name).rmdir()
    project.write(
        {
            "src/start.sh": "#!/bin/sh\n",
            "src/handler.py": "x = 1\n",
            "worker/start.sh": "#!/bin/sh\n",
            "worker/sub/z.py": "z = 1\n",
            "house.safetensors": safetensors(10),
        }
    )
    hub.add("acme/night", lfs={"night.safetensors": safetensors(20)})
    hub.add("acme/control", lfs={"control_v11.safetensors": safetensors(30)}, ref="v2")
    hub.add("acme/clip", files={"config.json": b"{}", "vocab.json": b"{}", "other": b""})
    files = dict.fromkeys(("vocab.json", "merges.txt", "special_tokens_map.json"), b"{}")
    files |= dict.fromkeys(("tokenizer_config.json", "config.json"), b"{}")
    made = hub.add("openai/clip-vit-large-patch14", files=files)
    repo = hub._repos["models", "openai/clip-vit-large-patch14"]
    repo.commits[CLIP] = repo.commits[made]
    civitai.add(130072, {"night.safetensors": safetensors(40)}, login="401")
    for path, content in {
        "/ink%20drawing.safetensors": safetensors(50),
        "/a.safetensors": safetensors(60),
        "/vae.pt": PICKLE,
        "/4x.pth": PICKLE,
        "/words.txt": b"words\n",
    }.items():
        web.route(path, content)
    project.environ |= {
        "HF_ENDPOINT": hub.endpoint,
        "CIVITAI_ENDPOINT": civitai.endpoint,
        "CIVITAI_TOKEN": civitai.token,
    }
    return project


def tree(project: Project, web: Web, name: str) -> str:
    """A repository with a tag; gives its commit. A webui's own script clones another one."""
    repo = GitRepo(project.root.parent / "git" / name)
    script = b"def prepare_environment():\n    pass\n"
    if name == "stable-diffusion-webui":
        commit = tree(project, web, "BLIP")
        clone = f"    git_clone('{web.url}/BLIP', repo_dir('BLIP'), 'BLIP', '{commit}')\n"
        script = f"def prepare_environment():\n{clone}".encode()
    commit = repo.commit({"webui.py": b"x = 1\n", "launch.py": script, "CHANGELOG.md": b"## 1.9.3\n"})
    repo.git("tag", "v1.9.3", commit)
    web.handle(f"/{name}/", repo.serve)
    return commit


def example(name: str, project: Project, replaced: dict[str, str]) -> None:
    text = (EXAMPLES / f"{name}.Dockerfile").read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    project.write({"Dockerfile": text})


def imported(run: Run, project: Project) -> tuple[Any, Any, dict[str, list[str]]]:
    """Recipe, layers, and what was said, by verdict."""
    done = run(project, "import", "Dockerfile")
    assert done.code == 0, done
    verdicts: dict[str, list[str]] = {"+": [], "=": [], "!": []}
    for line in done.out.splitlines():
        if line[0] in verdicts:
            verdicts[line[0]].append(line[2:].removeprefix("Dockerfile:"))
    name = "project"
    recipe, layers = ((project.root / f"{d}/{name}.yaml").read_text(encoding="utf-8") for d in ("recipes", "layers"))
    return yaml.safe_load(recipe), yaml.safe_load(layers), verdicts


def locks(run: Run, project: Project) -> Any:
    result: Result = run(project, "lock")
    assert result.code == 0, result
    pushed = run(project, "push", "oci:../out")
    assert pushed.code == 0, pushed
    return project.lock


def said(lines: list[str], number: int, *words: str) -> bool:
    return any(line.startswith(f"{number}: ") and all(word in line for word in words) for line in lines)


def test_a_serverless_worker(built: Project, web: Web, run: Run) -> None:
    commit = tree(built, web, "stable-diffusion-webui")
    example(
        "worker",
        built,
        {
            "https://github.com/AUTOMATIC1111/": f"{web.url}/",
            ".git &&": " &&",
            "FROM python:3.10.14-slim": "FROM scratch",
        },
    )
    recipe, layers, lines = imported(run, built)
    assert recipe["layers"] == ["webui", "clip-l14", "model", "project-files"]
    assert recipe["webui"] == {"root": "/stable-diffusion-webui", "ckpt": "/model.safetensors"}
    assert recipe["config"]["cmd"] == ["/bin/bash", "-o", "pipefail", "-c", "/start.sh"]
    assert recipe["config"]["env"]["ROOT"] == "/stable-diffusion-webui"
    assert layers["model"]["source"] == "hf://acme/night@main/night.safetensors"
    assert layers["project-files"]["files"]["/start.sh"] == {"source": "file:src/start.sh", "mode": "0755"}
    assert said(lines["+"], 7, "wget", "/model.safetensors") and said(lines["+"], 25, "git reset", "v1.9.3")
    assert said(lines["="], 32, "cache.py") and said(lines["="], 33, "hash cache") and said(lines["="], 6, "apk")
    assert said(lines["!"], 18, "apt install") and said(lines["!"], 27, "requirements_versions.txt")
    lock = locks(run, built)
    assert lock["layers"]["webui"]["pins"]["webui"]["source"].endswith(f"@{commit}")


def test_models_for_a_base_that_has_the_webui(built: Project, web: Web, run: Run) -> None:
    base = built.sibling("base").write(
        {
            "layers/l.yaml": "x: {kind: files, files: {/webui/x: {content: hi}}}\n",
            "recipes/r.yaml": "name: b\nlayers: [x]\ntags: ['1']\n",
        }
    )
    base.run("lock")
    base.run("push", "oci:../base-layout")
    digest = hashlib.sha256(PICKLE).hexdigest()
    example("models", built, {"https://files.example.com/": f"{web.url}/", "1" * 64: digest, "2" * 64: digest})
    recipe, layers, lines = imported(run, built)
    assert recipe["base"] == "registry.example.com/acme/a1111:1.10.1"
    assert recipe["webui"] == {"root": "/webui", "provided_by": "base"}
    assert {name: layer.get("type", layer["kind"]) for name, layer in layers.items()} == {
        **{"vae": "vae", "ink-drawing": "lora", "night": "checkpoint", "4x": "upscaler", "control-v11": "controlnet"},
        **{"project-files": "files", "clip": "huggingface"},
    }
    assert layers["4x"]["sha256"] == layers["vae"]["sha256"] == digest
    assert layers["ink-drawing"]["filename"] == "styles/ink drawing.safetensors"
    assert recipe["config"] == {
        "entrypoint": ["python", "webui.py", "--api"],
        "cmd": ["--nowebui"],
        "workdir": "/webui",
        "labels": {"org.opencontainers.image.title": "night worker"},
        "ports": ["3000/tcp"],
    }
    assert said(lines["!"], 2, "webui.version") and said(lines["!"], 6, "HF_TOKEN") and said(lines["!"], 21, "loop")
    assert said(lines["!"], 13, "CIVITAI_TOKEN") and said(lines["!"], 22, "tools.tar.gz")
    path = built.root / "recipes/project.yaml"
    text = path.read_text(encoding="utf-8").replace("registry.example.com/acme/a1111:1.10.1", "oci:../base-layout:b:1")
    path.write_text(text.replace("provided_by: base", "provided_by: base\n  version: 1.10.1"), encoding="utf-8")
    locks(run, built)


def test_extensions_and_local_files(built: Project, web: Web, run: Run) -> None:
    tree(built, web, "stable-diffusion-webui")
    commit = tree(built, web, "sd-webui-controlnet")
    example(
        "extensions",
        built,
        {
            "https://github.com/AUTOMATIC1111/": f"{web.url}/",
            "https://github.com/Mikubill/": f"{web.url}/",
            "https://files.example.com/": f"{web.url}/",
            "56cec5b2958edf3b1807b7e7b2b1b5186dbd2f81": commit,
            "82a973c0": "v1.9.3",
            "FROM pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime": "FROM scratch",
        },
    )
    path = built.root / "marker"
    built.write({"Dockerfile": (built.root / "Dockerfile").read_text() + f"RUN touch {path} && $(touch {path})\n"})
    recipe, layers, lines = imported(run, built)
    assert not path.exists()
    assert layers["webui"]["extensions"] == {"sd-webui-controlnet": f"git+{web.url}/sd-webui-controlnet@{commit}"}
    assert layers["first"]["filename"] == "first.safetensors" and layers["house"]["type"] == "lora"
    assert set(layers["project-files"]["files"]) == {"/opt/worker/start.sh", "/opt/worker/sub/z.py"}
    assert recipe["webui"] == {"root": "/app"} and recipe["config"]["user"] == "1000:1000"
    assert said(lines["!"], 14, "snapshot_download") and said(lines["!"], 15, "$(…)")
    locks(run, built)


class TestAround:
    def test_nothing_is_written_over(self, built: Project, run: Run) -> None:
        built.write({"Dockerfile": "FROM scratch\n", "recipes/project.yaml": "name: mine\n"})
        run(built, "import", "Dockerfile").failed(2, "recipes/project.yaml", "there already", "-o recipes/")
        assert not (built.root / "layers").exists()
        done = run(built, "import", "Dockerfile", "-o", "recipes/new.yaml", "--json")
        assert done.json["written"][0] == "recipes/new.yaml" and done.json["lines"] == []
        run(built, "import", "Dockerfile", "-o", "new.yaml").failed(2, "recipes/NAME.yaml")

    def test_what_cannot_be_read(self, built: Project, run: Run) -> None:
        run(built, "import", "gone").failed(2, "gone", "cannot be read")
        built.write({"Dockerfile": b"\xff\0\x1b"})
        run(built, "import", "Dockerfile").failed(2, "no FROM")

    def test_secrets_reach_no_file(self, built: Project, run: Run) -> None:
        text = (
            "FROM scratch\nARG TOKEN=SECRET1\nENV API_KEY=SECRET1\nENV HF_TOKEN SECRET1\n"
            "RUN wget -O /a.safetensors 'https://x.example/a.safetensors?token=SECRET1'\n"
            "RUN wget https://me:SECRET1@x.example/b.safetensors\n"
            "RUN git clone https://me:SECRET1@github.com/acme/stable-diffusion-webui /w\n"
            "RUN hf download acme/x a.pt --token SECRET1 --local-dir /m && curl -H 'X-Token: SECRET1' -o /y https://y.example/y\n"
        )
        done = run(built.write({"Dockerfile": text}), "import", "Dockerfile", "--offline")
        assert done.code == 0 and "https://y.example/y" in done.out
        written = [path.read_text() for name in ("recipes", "layers") for path in (built.root / name).iterdir()]
        assert len(written) == 2
        assert not any("SECRET1" in text for text in (*written, done.out, done.err))

    def test_files_outside_of_the_context_and_too_many(self, built: Project, run: Run) -> None:
        built.write(
            {f"many/{i}": "" for i in range(201)} | {"Dockerfile": "FROM scratch\nCOPY ../.. many /x/\nCOPY gone /y\n"}
        )
        done = run(built, "import", "Dockerfile")
        assert done.out.count("is not there, or has too many files") == 3
        assert not (built.root / "layers").exists()

    def test_a_header_is_asked_where_no_place_tells(self, built: Project, hub: Hub, run: Run) -> None:
        from e2e.test_add import tensors

        hub.add("acme/ink", lfs={"ink.safetensors": tensors("lora_unet_x.lora_down.weight")})
        text = "FROM scratch\nRUN wget -O /opt/ink.safetensors https://huggingface.co/acme/ink/resolve/main/ink.safetensors\n"
        assert run(built.write({"Dockerfile": text}), "import", "Dockerfile").code == 0
        assert yaml.safe_load((built.root / "layers/project.yaml").read_text())["ink"]["type"] == "lora"


def test_the_project_may_be_named(built: Project, run: Run) -> None:
    built.write(
        {"here/Dockerfile": "FROM a/b\nCOPY x /x\n", "here/x": "x", "p/recipes/a.yaml": "name: a\nlayers: []\n"}
    )
    done = run(built, "-C", "p", "import", "here/Dockerfile")
    assert done.code == 0, done
    assert (built.root / "p/recipes/here.yaml").is_file() and not (built.root / "here/recipes").exists()
    layers = yaml.safe_load((built.root / "p/layers/here.yaml").read_text())
    assert layers["here-files"]["files"] == {"/x": {"source": "file:../here/x"}}


def test_names_do_not_reach_the_terminal_as_commands(built: Project, run: Run) -> None:
    built.write({"Dockerfile": "FROM a/b\nRUN wget -O '/x\x1b[2J.txt' https://x.example/a\n"})
    done = run(built, "import", "Dockerfile", "--offline")
    assert done.code == 0 and "/x\\x1b[2J.txt" in done.out and "\x1b" not in done.out + done.err

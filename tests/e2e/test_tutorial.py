"""The tutorial, from an empty directory: every command is run, and what it prints is what the page shows.

What differs from a reader's machine: the Hub is the tests' (HF_ENDPOINT), with smaller files of the same names; the
registry on this machine has another port, and runs already (`docker` does nothing); the image that stands for the
reader's own worker lies in a registry of the tests. layerbuild is installed already, so that pip has nothing to do.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from e2e.test_add import tensors
from fixtures import tutorial
from fixtures.hub import Hub
from fixtures.registry import Front, Image, make_image
from layerbuild import http
from layerbuild.registry.client import RegistryClient

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"

_CLIP = "openai/clip-vit-large-patch14"
_CLIP_COMMIT = "32bd64288804d66eefd0ccbe215aa642df71cc41"
_CLIP_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "config.json")

CHECKPOINT, LORA = 40 * 2**20, 20 * 2**20
"""Bytes of the stand-ins: each is large enough for a layer of its own."""


def fill(hub: Hub) -> None:
    """The repositories of the page."""
    checkpoint = tensors("cond_stage_model.transformer.x", size=CHECKPOINT)
    hub.add("Lykon/DreamShaper", lfs={"DreamShaper_8_pruned.safetensors": checkpoint})
    lora = tensors("lora_unet_x.lora_down.weight", size=LORA)
    hub.add("latent-consistency/lcm-lora-sdv1-5", lfs={"pytorch_lora_weights.safetensors": lora})
    made = hub.add(_CLIP, files=dict.fromkeys(_CLIP_FILES, b"{}"))
    # The catalog pins the real commit.
    clip = hub._repos["models", _CLIP]
    clip.commits[_CLIP_COMMIT] = clip.commits[made]


def worker_image() -> Image:
    """What stands for the reader's image: a tree that an audit takes for the webui."""
    stream = io.BytesIO()
    files = {
        "stable-diffusion-webui/webui.py": b"",
        "stable-diffusion-webui/modules/launch_utils.py": b"",
        "stable-diffusion-webui/CHANGELOG.md": b"## 1.10.1\n",
    }
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("stable-diffusion-webui", "stable-diffusion-webui/modules", "stable-diffusion-webui/models"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return make_image(
        [("application/vnd.oci.image.layer.v1.tar", stream.getvalue())],
        config={"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["/start.sh"]},
    )


def put(image: Image, front: Front, repository: str, tag: str) -> None:
    client = RegistryClient(front.host, client=http.Client(), environ={})
    for blob in image.blobs:
        client.upload_blob(repository, blob, advance=lambda amount: None)
    client.put_manifest(repository, tag, image.media_type, image.manifest)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Whoever follows the page in an empty directory."""

    directory: Path
    environ: Mapping[str, str]
    substitutions: Mapping[str, str]

    def follows(self, found: Sequence[tutorial.Step]) -> list[tutorial.Run]:
        return tutorial.run(found, self.directory, self.environ, self.substitutions)


@pytest.fixture
def reader(tmp_path: Path, hub: Hub, registry: Front, other_registry: Front) -> Reader:
    fill(hub)
    put(worker_image(), other_registry, f"{other_registry.prefix}/a1111", "1.10.1")
    home, empty, programs = tmp_path / "home", tmp_path / "empty", tmp_path / "programs"
    for directory in (home, empty, programs):
        directory.mkdir()
    docker = programs / "docker"
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    environ = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(home),
        "HF_ENDPOINT": hub.endpoint,
        "NO_PROXY": "127.0.0.1,localhost",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    substitutions = {
        "127.0.0.1:5000": registry.host,
        "registry.example.com/acme": f"{other_registry.host}/{other_registry.prefix}",
    }
    return Reader(directory=empty, environ=environ, substitutions=substitutions)


def page() -> list[tutorial.Step]:
    return list(tutorial.steps(PAGE.read_text(encoding="utf-8")))


def test_the_tutorial_does_what_it_says(reader: Reader) -> None:
    ran = reader.follows(page())
    for one in ran:
        if one.step.output:
            assert tutorial.plain(one.output) == tutorial.plain(one.step.output), f"$ {one.step.command}\n{one.output}"
    commands = re.findall(r"^layerbuild (\w+)", "\n".join(one.step.command for one in ran), re.MULTILINE)
    assert {"init", "add", "lock", "plan", "push", "show", "diff", "audit"} <= set(commands)
    assert sum(bool(one.step.output) for one in ran) > 10


def test_the_tutorial_can_be_tried_without_an_image(reader: Reader) -> None:
    without = [step for step in page() if "layerbuild audit" not in step.command]
    base = "base: registry.example.com/acme/a1111:1.10.1"
    instead = {base: "base: scratch", "provided_by: base, ": ""}
    assert base in PAGE.read_text(encoding="utf-8") and len(without) == len(page()) - 1
    replace(reader, substitutions={**instead, **reader.substitutions}).follows(without)


def test_little_may_differ() -> None:
    told = "sent 2.1 GiB in 23.3 s\nIMAGE  SIZE\nworker:v1  sha256:0debea09354467ad  2.0 GiB"
    there = "sent 40.0 MiB in 1.0 s\nIMAGE   SIZE\nworker:v1   sha256:aaaabbbbccccdddd   40.0 MiB"
    assert tutorial.plain(told) == tutorial.plain(there)
    for other in (
        "sent nothing",
        there.replace("worker:v1", "worker:v2"),
        there.replace("IMAGE", "LAYER"),
        f"{there}\n!",
    ):
        assert tutorial.plain(told) != tutorial.plain(other)


def test_blocks_are_run_in_one_shell(tmp_path: Path) -> None:
    blocks = [
        "```sh\na=1\ncat <<'END'\n$a\nEND\n```",
        "```text\n$a\n```",
        "words",
        "```sh\necho $a\n```",
        "```yaml\nb: 1\n```",
    ]
    found = list(tutorial.steps("\n\n".join(blocks)))
    assert [step.output for step in found] == ["$a", ""]
    environ = {"PATH": os.environ["PATH"]}
    ran = tutorial.run(found, tmp_path, environ, {"echo $a": "echo $a$a"})
    assert [one.output for one in ran] == ["$a", "11"]
    with pytest.raises(AssertionError, match="no-such-command"):
        tutorial.run([tutorial.Step(command="no-such-command", output=""), *found], tmp_path, environ, {})

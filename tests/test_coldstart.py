"""The probe of the cold start, on an image made by layerbuild and on the same files copied to their places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.readers import unpack
from fixtures.gitrepo import GitRepo
from fixtures.pickles import harmless
from fixtures.project import Project, safetensors

_ROOT = Path(__file__).parents[1]
_LAYERS = """
webui: {kind: webui, source: git+file:webui.git@main, version: RELEASE}
sd15: {kind: model, type: checkpoint, source: file:sd15.safetensors, filename: sub/sd15.safetensors, links: file}
sd21:
  kind: model
  type: checkpoint
  source: file:sd21.safetensors
  sidecars: {.yaml: file:sd21.yaml}
  links: file
vae: {kind: model, type: vae, source: file:vae.safetensors, links: file}
ink: {kind: model, type: lora, source: file:ink.safetensors, links: file}
style: {kind: model, type: embedding, source: file:style.pt, links: file}
clip:
  kind: huggingface
  source: file:clip
  repository: openai/clip-vit-large-patch14
  revision: 32bd64288804d66eefd0ccbe215aa642df71cc41
  absent: [added_tokens.json]
"""
_RECIPE = """
base: scratch
webui: {root: /webui}
# umoci reads no zstd.
compression: gzip
layers: [webui, sd15, sd21, vae, ink, style, clip]
tags: [v1]
"""
_SD2 = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
_CLIP = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "config.json")
_HEADER = json.dumps({_SD2: {"dtype": "U8", "shape": [500], "data_offsets": [0, 500]}}).encode()
_FILES = {
    "sd15.safetensors": safetensors(1000, {"format": "pt"}, seed=1),
    "sd21.safetensors": len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(500),
    "sd21.yaml": b"model: {}\n",
    "vae.safetensors": safetensors(400, seed=3),
    "ink.safetensors": safetensors(300, {"ss_output_name": "ink"}, seed=4),
    "style.pt": harmless("style"),
    **{f"clip/{name}": b"{}" for name in _CLIP},
}


def _probe(webui: Path, release: str, hf_home: Path, **environ: str) -> list[dict[str, Any]]:
    """The steps of a start with the newest client of the Hub."""
    arguments = ["--root", str(webui), "--release", release, "--checkpoint", "sub/sd15.safetensors", "--evict"]
    done = subprocess.run(
        [sys.executable, str(_ROOT / "benchmarks/probe.py"), *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(hf_home.parent),
            "PYTHONPATH": str(_ROOT / ".peers/hub-new"),
            "HF_HOME": str(hf_home),
            **environ,
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    steps: list[dict[str, Any]] = json.loads(done.stdout)
    return steps


def _sum(steps: list[dict[str, Any]], key: str) -> int:
    total: int = sum(step[key] for step in steps)
    return total


def _hashed(steps: list[dict[str, Any]]) -> list[str]:
    return [path for step in steps for path in step["hashed"]]


@pytest.fixture(params=["1.10.1", "1.6.1"])
def release(request: pytest.FixtureRequest) -> str:
    """Of the webui."""
    value: str = request.param
    return value


@pytest.fixture
def ours(project: Project, release: str) -> Path:
    """The root file system of an image from layerbuild."""
    GitRepo(project.root / "webui.git").commit({"webui.py": b"print('webui')\n"})
    project.write({"layers/all.yaml": _LAYERS.replace("RELEASE", release), "recipes/image.yaml": _RECIPE, **_FILES})
    project.run("lock")
    project.run("push", f"oci:{project.root / 'out'}")
    return unpack(project.root / "out", "image:v1", project.root / "bundle")


def test_an_image_from_layerbuild_hashes_and_asks_nothing(ours: Path, release: str) -> None:
    steps = _probe(ours / "webui", release, ours / "opt/huggingface", HF_HUB_OFFLINE="1")
    assert _hashed(steps) == []
    assert {key: _sum(steps, key) for key in ("hashed_bytes", "headers", "trials", "asked", "requests", "waits")} == {
        "hashed_bytes": 0,
        "headers": 0,
        "trials": 0,
        "asked": 0,
        "requests": 0,
        "waits": 0,
    }
    models = [data for name, data in _FILES.items() if name.endswith((".safetensors", ".pt"))]
    assert _sum(steps, "loaded_bytes") == sum(map(len, models))
    # Converted by the releases that have a database.
    assert (ours / "webui/cache").is_dir() == (release == "1.10.1")


def test_copied_files_are_hashed_and_the_hub_is_asked(tmp_path: Path, release: str) -> None:
    webui, home = tmp_path / "webui", tmp_path / "huggingface"
    places = {
        "sd15.safetensors": "models/Stable-diffusion/sub",
        "sd21.safetensors": "models/Stable-diffusion",
        "vae.safetensors": "models/VAE",
        "ink.safetensors": "models/Lora",
        "style.pt": "embeddings",
    }
    for name, place in places.items():
        (webui / place).mkdir(parents=True, exist_ok=True)
        (webui / place / name).write_bytes(_FILES[name])
    clip = home / "hub/models--openai--clip-vit-large-patch14"
    commit = "32bd64288804d66eefd0ccbe215aa642df71cc41"
    (clip / "refs").mkdir(parents=True)
    (clip / "refs/main").write_text(commit)
    (clip / "snapshots" / commit).mkdir(parents=True)
    for name in _CLIP:
        (clip / "snapshots" / commit / name).write_bytes(b"{}")
    steps = _probe(webui, release, home)
    assert _hashed(steps) == [
        "models/Stable-diffusion/sub/sd15.safetensors",
        "embeddings/style.pt",
        "models/Lora/ink.safetensors",
        "models/VAE/vae.safetensors",
        "models/Stable-diffusion/sd21.safetensors",
    ]
    models = [_FILES[name] for name in places]
    # A Lora is hashed without its header.
    lora = _FILES["ink.safetensors"]
    header = 8 + int.from_bytes(lora[:8], "little")
    assert _sum(steps, "hashed_bytes") == sum(map(len, models)) - header
    assert [_sum(steps, key) for key in ("headers", "trials", "asked")] == [3, 1, 6]
    assert _sum(steps, "requests") >= 6
    # What it computed it finds again, but for a file that is newer.
    os.utime(webui / "models/VAE/vae.safetensors", (2e9, 2e9))
    assert _hashed(_probe(webui, release, home)) == ["models/VAE/vae.safetensors"]

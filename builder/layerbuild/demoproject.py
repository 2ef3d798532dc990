"""A small project with real files: what `layerbuild demo` shows its work on.

Everything is made from a fixed seed, so that two demos give the same digests on any machine.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

from layerbuild.errors import LayerbuildError

CLIP_COMMIT = "32bd64288804d66eefd0ccbe215aa642df71cc41"
_MIB = 1024 * 1024
_SEED = 20240501

_LAYERS = """\
# What images can be made of. A name here is used in recipes/; the catalog has more.
photo:
  kind: model
  type: checkpoint
  source: file:models/photo.safetensors

paint:
  kind: model
  type: checkpoint
  source: file:models/paint.safetensors

ink:
  kind: model
  type: lora
  source: file:models/ink.safetensors

# The same bytes under another name: no second layer.
photo-as-default:
  kind: model
  type: checkpoint
  source: file:models/photo.safetensors
  filename: model.safetensors

clip:
  kind: huggingface
  source: file:clip-vit-large-patch14
  repository: openai/clip-vit-large-patch14
  revision: {commit}
  absent: [added_tokens.json]

webui:
  kind: webui
  source: git+file:webui@main
  version: 1.10.1

worker:
  kind: files
  files:
    /opt/worker/start.sh: {{template: start.sh.j2, mode: "0755"}}
  vars: {{port: 3000}}
"""

_START = """\
#!/bin/sh
# Starts the webui of {{ image.name }} as an API.
exec python {{ webui.root }}/webui.py --nowebui --api --port {{ port }} --skip-prepare-environment
"""

_FIRST = """\
# Two checkpoints and a Lora on the webui.
name: gallery
base: scratch
webui: {root: /stable-diffusion-webui}
layers: [webui, clip, photo, paint, ink, worker]
config:
  cmd: [/opt/worker/start.sh]
tags: [demo]
"""

_SECOND = """\
# Another image with another webui root. It shares every weight with the first.
name: photo-only
base: scratch
webui: {root: /srv/webui}
layers: [webui, clip, photo-as-default, worker]
config:
  cmd: [/opt/worker/start.sh]
tags: [demo]
"""


def create(root: Path) -> None:
    """Make the project in `root`, which is new or empty.

    Raises:
        LayerbuildError: something cannot be written, or git is missing.
    """
    try:
        _models(root / "models")
        _snapshot(root / "clip-vit-large-patch14")
        _text(root / "layers" / "demo.yaml", _LAYERS.format(commit=CLIP_COMMIT))
        _text(root / "layers" / "start.sh.j2", _START)
        _text(root / "recipes" / "gallery.yaml", _FIRST)
        _webui(root / "webui")
    except OSError as error:
        raise LayerbuildError(
            f"the demo cannot be written to {root}",
            cause=error.strerror,
            hint="name a directory that can be made: layerbuild demo DIR",
        ) from None


def add_second_image(root: Path) -> None:
    """A second recipe that shares the first one's weights."""
    _text(root / "recipes" / "photo-only.yaml", _SECOND)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _models(directory: Path) -> None:
    directory.mkdir(parents=True)
    source = random.Random(_SEED)  # noqa: S311  # the same bytes on every machine is the point
    write_safetensors(directory / "photo.safetensors", {"modelspec.title": "Photo"}, 40 * _MIB, source)
    write_safetensors(directory / "paint.safetensors", {"modelspec.title": "Paint"}, 32 * _MIB, source)
    tags = json.dumps({"10_ink": {"ink drawing": 10, "line art": 4}})
    write_safetensors(directory / "ink.safetensors", {"ss_tag_frequency": tags}, 20 * _MIB, source)


def write_safetensors(path: Path, metadata: dict[str, str], size: int, source: random.Random) -> None:
    """A valid safetensors file with one fp16 tensor of `size` bytes of noise."""
    tensor = {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": metadata, "model.weight": tensor}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(0, size, _MIB):
            file.write(source.randbytes(_MIB))


def _snapshot(directory: Path) -> None:
    """The files of CLIP's tokenizer, with a vocabulary of bytes only."""
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    limits = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}
    _text(directory / "vocab.json", json.dumps(vocabulary))
    _text(directory / "merges.txt", "#version: 0.2\n")
    _text(directory / "special_tokens_map.json", json.dumps({**special, "pad_token": "<|endoftext|>"}))
    _text(directory / "tokenizer_config.json", json.dumps({**special, **limits}))
    _text(directory / "config.json", json.dumps({"model_type": "clip", "text_config": {"vocab_size": len(tokens)}}))


def _webui(directory: Path) -> None:
    """A git repository that stands for the webui."""
    _text(directory / "webui.py", 'print("this stands for the webui")\n')
    _text(directory / "modules" / "launch_utils.py", "# the real one pins the checkouts under repositories/\n")
    _text(directory / "models" / "Stable-diffusion" / "Put Stable Diffusion checkpoints here.txt", "")
    moment = "2024-05-01T00:00:00Z"
    identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _WHO.items()}
    dates = {"GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**clean, **identity, **dates, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    script = (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "The webui's stand-in"])
    try:
        for arguments in script:
            subprocess.run(["git", *arguments], cwd=directory, env=environment, check=True, capture_output=True)  # noqa: S607
    except FileNotFoundError:
        raise LayerbuildError("the demo needs git", hint="install git") from None
    except subprocess.CalledProcessError as error:
        raise LayerbuildError(
            "git cannot make the demo's repository",
            cause=error.stderr.decode()[:500],
            hint="check that git runs here: git --version",
        ) from None


_WHO = {"NAME": "layerbuild", "EMAIL": "demo@layerbuild.invalid"}

"""Where targets put things, and the flags that make the webui look there."""

from __future__ import annotations

import pytest

from layerbuild.model import Target
from layerbuild.webui.hashcache import cache_path
from layerbuild.webui.modeltypes import checkpoint_directories, flags, name_of_checkpoint, place, short_names

FLAGGED = Target(
    type_dirs=(("checkpoint", "/c"), ("lora", "/l"), ("vae", "/v"), ("hypernetwork", "/h")), checkpoint="/m.safetensors"
)


def test_the_defaults_need_no_flags() -> None:
    assert flags(Target()) == []
    embeddings = "/stable-diffusion-webui/models/embeddings"
    assert flags(Target(flavor="sdnext", embeddings_dir=embeddings)) == []
    assert flags(Target(embeddings_dir=embeddings)) == ["--embeddings-dir", embeddings]


def test_every_directory_has_its_flag() -> None:
    assert flags(FLAGGED) == [
        *("--ckpt-dir", "/c", "--lora-dir", "/l", "--vae-dir", "/v", "--hypernetwork-dir", "/h"),
        *("--ckpt", "/m.safetensors"),
    ]
    assert flags(Target(data_dir="/d", models_dir="/d/models", embeddings_dir="/d/embeddings")) == ["--data-dir", "/d"]
    moved = flags(Target(models_dir="/m", embeddings_dir="/e"))
    assert moved == ["--models-dir", "/m", "--embeddings-dir", "/e"]


def test_flagged_directories_hold_their_type_and_nothing_else() -> None:
    assert place("checkpoint", "a/b.ckpt", FLAGGED) == "/c/a/b.ckpt"
    assert place("lora", "x.pt", FLAGGED) == "/l/x.pt"
    assert place("embedding", "x.pt", FLAGGED) == "/stable-diffusion-webui/embeddings/x.pt"
    assert place("upscaler", "x.pth", FLAGGED, "DAT") == "/stable-diffusion-webui/models/DAT/x.pth"
    assert checkpoint_directories(FLAGGED) == ("/c", "/stable-diffusion-webui/models/Stable-diffusion")


@pytest.mark.parametrize(
    ("path", "name", "short"),
    [
        ("/c/a/b.ckpt", "a/b.ckpt", ["a/b.ckpt", "a/b"]),
        ("/stable-diffusion-webui/models/Stable-diffusion/b.ckpt", "b.ckpt", ["b.ckpt", "b"]),
        ("/elsewhere/b.c.ckpt", "b.c.ckpt", ["b.c.ckpt", "/elsewhere/b.c"]),
        ("/stable-diffusion-webui/own/b.ckpt", "b.ckpt", ["b.ckpt", "own/b"]),
    ],
)
def test_names_of_checkpoints(path: str, name: str, short: list[str]) -> None:
    assert name_of_checkpoint(path, FLAGGED) == name
    assert short_names(path, FLAGGED) == short


def test_places_of_the_cache() -> None:
    assert cache_path(Target(data_dir="/d")) == "/d/cache.json"
    assert cache_path(Target(data_dir="/d", flavor="forge")) == "/d/cache.json"
    assert cache_path(Target(data_dir="/d", flavor="sdnext")) == "/d/data/cache.json"
    assert cache_path(Target(data_dir="/d", cache_file="/x/hashes.json")) == "/x/hashes.json"

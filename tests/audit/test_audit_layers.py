"""Planted: layers as registries and nodes see them; and the image that a Dockerfile makes."""

from __future__ import annotations

import json
import random

import pytest

from audit.planting import CLIP_FILES, ROOT, SD2, SDXL, Image, Item, directory, empty, hardlink, link, model
from layerbuild.audit import checks
from layerbuild.model import LARGE

MIB = 1024 * 1024
NOISE = random.Random(7).randbytes(LARGE + 100)


def noise(seed: int, size: int = LARGE + 100) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_weights_in_a_compressed_layer(sound: Image, compression: str) -> None:
    path = f"{ROOT}/models/ControlNet/big.pth"
    image = sound.plant({path: bytes(64 * MIB), f"{ROOT}/small.pth": bytes(63 * MIB)}, compression=compression)
    finding = image.found("weights-compressed")
    assert finding.paths == (f"/{path}",) and finding.cost.when == "pull" and compression in finding.what
    assert image.ids() == {"weights-compressed"}


def test_weights_in_a_plain_layer_are_fine(sound: Image) -> None:
    assert sound.plant({f"{ROOT}/models/ControlNet/big.pth": bytes(64 * MIB)}).ids() == set()


@pytest.mark.parametrize(
    ("size", "refusing"),
    [
        (10**10, []),
        (10**10 + 1, ["GHCR"]),
        (33 * 1024**3, ["GHCR", "Harbor"]),
        (52_001 * MIB, ["GHCR", "Harbor", "ECR"]),
    ],
)
def test_layers_over_the_limits_of_registries(sound: Image, size: int, refusing: list[str]) -> None:
    image = sound.hole(b"", size)
    findings = [f for f in image.findings() if f.id == "layer-too-large"]
    assert len(findings) == bool(refusing)
    for finding in findings:
        assert [name for name in ("GHCR", "Harbor", "ECR") if name in finding.what] == refusing


def test_too_many_layers(sound: Image) -> None:
    image = sound
    while len(image.layers) < 127:
        image = image.plant({"etc/x": "same"})
    assert image.ids() == set()
    assert image.plant({"etc/x": "same"}).ids() == {"too-many-layers"}


def test_bytes_that_a_later_layer_hides(sound: Image) -> None:
    below = sound.plant({"data/a/big.bin": NOISE, "data/a/tiny.bin": b"x", "data/b.bin": NOISE[: 2 * MIB]})
    assert below.ids() == set()
    for above in ({"data/a": None}, {"data/a/big.bin": b"other"}, {"data/a": "a file"}, {"data/a/.wh..wh..opq": ""}):
        finding = below.plant(above).found("bytes-hidden")
        assert finding.paths == ("/data/a/big.bin",) and finding.cost.downloaded == len(NOISE)
    # chown and chmod copy
    assert below.plant({"data/b.bin": Item(data=NOISE[: 2 * MIB], mode=0o755)}).ids() == {"bytes-hidden"}
    assert below.plant({"data/a": directory(mode=0o700)}).ids() == set()


@pytest.mark.parametrize("first", ["none", "gzip"])
@pytest.mark.parametrize("second", ["none", "zstd"])
def test_the_same_bytes_twice(sound: Image, first: str, second: str) -> None:
    image = sound.plant({"data/a.bin": NOISE}, compression=first).plant({"data/b.bin": NOISE}, compression=second)
    finding = image.found("bytes-duplicated")
    assert finding.paths == ("/data/a.bin", "/data/b.bin") and finding.cost.downloaded == len(NOISE)
    other = bytearray(NOISE)
    # models of one kind have the same header
    other[len(other) // 2 :] = noise(8)[len(other) // 2 :]
    image = sound.plant({"data/a.bin": NOISE}, compression=first).plant(
        {"data/b.bin": bytes(other)}, compression=second
    )
    assert image.ids() == set()


def test_a_link_is_no_second_copy(sound: Image) -> None:
    image = sound.plant({"data/a.bin": NOISE, "data/b.bin": link("a.bin"), "data/c.bin": hardlink("data/a.bin")})
    assert image.ids() == set()
    assert image.plant({"data/a.bin": None}).ids() == set()


def test_content_named_files_of_one_size_are_not_read(sound: Image) -> None:
    names = ["a" * 64, "b" * 64, "c" * 64]
    image = sound
    for i, name in enumerate(names):
        image = image.plant({f"opt/weights/sha256/{name}": noise(i)})
    view = image.view()
    read: list[int] = []
    inner = view.files._read_body
    view.files._read_body = lambda node, offset, length: read.append(node.size) or inner(node, offset, length)  # type: ignore[assignment,func-returns-value]
    assert not [f for f in checks.run(view) if f.id == "bytes-duplicated"]
    assert LARGE + 100 not in read


def test_zstd_layers_are_information(sound: Image) -> None:
    assert sound.found("zstd-layers").severity == "info"


def test_the_image_that_a_dockerfile_makes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files copied, caches forgotten: every finding that this project exists for, in one image."""
    root = "stable-diffusion-webui"
    site = "usr/local/lib/python3.10/site-packages"
    webui = {
        f"{root}/webui.py": "",
        f"{root}/launch.py": "",
        f"{root}/modules/launch_utils.py": "",
        f"{root}/modules/paths.py": "",
        f"{root}/CHANGELOG.md": "## 1.9.4\n",
        f"{root}/repositories/stable-diffusion-stability-ai/ldm/models/diffusion/ddpm.py": "",
        f"{root}/cache/hashes/cache.db": "",
        "root/.cache/huggingface/hub/models--openai--clip-vit-large-patch14/refs/main": "a" * 40 + "\n",
        **{
            f"root/.cache/huggingface/hub/models--openai--clip-vit-large-patch14/snapshots/{'a' * 40}/{name}": "{}"
            for name in CLIP_FILES
        },
        "root/.cache/huggingface/token": "x",
    }
    models = {
        f"{root}/models/Stable-diffusion/sdxl.safetensors": Item(data=model(SDXL, size=65 * MIB), mtime=1.7e9),
        f"{root}/models/Stable-diffusion/v2.safetensors": Item(data=model(SD2), mtime=1.7e9),
        f"{root}/models/Lora/one/x.safetensors": Item(data=model(("lora",)), mtime=1.7e9),
        f"{root}/models/Lora/two/x.safetensors": Item(data=model(("lora",), seed=2), mtime=1.7e9),
        f"{root}/models/VAE/a.pt": Item(data=b"a", mtime=1.7e9),
        f"{root}/models/VAE/b.pt": Item(data=b"b", mtime=1.7e9),
        f"{root}/cache.json": json.dumps({"hashes": {}}),
    }
    packages = {f"{site}/torch/big.py": b"#" * 30_000_000}
    layout = tmp_path_factory.mktemp("old") / "out"
    image = empty(layout).plant(webui, compression="gzip").plant(packages, compression="gzip")
    largest = f"{root}/models/Stable-diffusion/sdxl.safetensors"
    image = image.plant(models, compression="gzip").plant({largest: models[largest]}, compression="gzip")
    image = image.configured(Cmd=["python3", "launch.py", "--api"], WorkingDir=f"/{root}", env={"CIVITAI_TOKEN": "x"})
    image = image.with_history("|1 HF_TOKEN=hf_x /bin/sh -c pip install torch")
    assert image.ids() == {
        "cache-hidden", "model-not-hashed", "metadata-not-cached", "keys-collide", "several-vaes", "sd2-without-yaml",
        "hf-online", "hf-ref-broken", "hf-no-version", "vae-approx-missing",
        "launch-prepares", "checkout-without-git", "bytecode-missing", "weights-compressed", "bytes-hidden",
        "secret-file", "secret-in-config", "secret-in-history",
    }  # fmt: skip

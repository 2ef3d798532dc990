"""Planted: everything that makes the webui hash a model again, or take it for another."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.planting import ROOT, SD2, Image, Item, directory, empty, link, model
from layerbuild.audit.limits import Unreadable
from layerbuild.model import MTIME

CACHE = f"{ROOT}/cache.json"
CHECKPOINTS = f"{ROOT}/models/Stable-diffusion"
LARGE_TIME = MTIME + 1000


def cache_of(image: Image) -> dict[str, Any]:
    view = image.view()
    node = view.files.file(f"/{CACHE}")
    assert node is not None
    value: dict[str, Any] = json.loads(view.files.read(node) or b"")
    return value


def recached(image: Image, change: Any) -> Image:
    """`image` with a changed cache.json on top."""
    value = cache_of(image)
    change(value)
    return image.plant({CACHE: json.dumps(value)})


def test_what_layerbuild_makes_is_clean(sound: Image) -> None:
    assert sound.ids() == set()
    view = sound.view()
    assert view.webui is not None
    assert view.webui.title == "A1111 1.10.1 in /srv/webui"
    kinds = sorted(m.placed.type for m in view.models)
    assert kinds == ["checkpoint", "checkpoint", "embedding", "hypernetwork", "lora", "vae"]


@pytest.mark.parametrize(
    ("section", "key", "path", "when"),
    [
        # the first by name is the one that a start loads
        ("hashes", "checkpoint/photo.safetensors", "models/Stable-diffusion/photo.safetensors", "start"),
        ("hashes", "checkpoint/sub/paint.safetensors", "models/Stable-diffusion/sub/paint.safetensors", "use"),
        ("hashes-addnet", "lora/ink", "models/Lora/ink.safetensors", "use"),
        ("hashes", "vae", "models/VAE/vae.safetensors", "use"),
        ("hashes", "textual_inversion/easy", "embeddings/easy.pt", "use"),
        ("hashes", "hypernet/hyper", "models/hypernetworks/hyper.pt", "use"),
    ],
)
def test_a_model_without_an_entry(sound: Image, section: str, key: str, path: str, when: str) -> None:
    finding = recached(sound, lambda value: value[section].pop(key)).found("model-not-hashed")
    assert finding.paths == (f"/{ROOT}/{path}",)
    assert finding.cost.when == when and finding.cost.hashed > 500 and finding.cost.seconds > 0
    assert finding.severity == ("error" if when == "start" else "warning")


def test_no_cache_at_all(sound: Image) -> None:
    findings = sound.plant({CACHE: None}).findings()
    assert [f.id for f in findings].count("model-not-hashed") == 6
    assert [f.id for f in findings].count("metadata-not-cached") == 3


def test_an_entry_that_is_no_entry(sound: Image) -> None:
    for nonsense in (None, [], {"mtime": "now", "sha256": "a"}, {"mtime": 1.0}):
        image = recached(sound, lambda value, n=nonsense: value["hashes"].update({"checkpoint/photo.safetensors": n}))
        assert image.ids() == {"model-not-hashed"}


def test_a_file_newer_than_its_entry(sound: Image) -> None:
    newer = Item(data=model(seed=1, metadata={"modelspec.title": "Photo"}), mtime=LARGE_TIME)
    image = sound.plant({f"{CHECKPOINTS}/photo.safetensors": newer})
    assert image.found("entry-stale").cost.hashed == len(newer.data)
    # fractions are lost on the way to a container
    same = replace(newer, mtime=MTIME + 0.9)
    assert sound.plant({f"{CHECKPOINTS}/photo.safetensors": same}).ids() == set()


def test_an_entry_newer_than_its_file(sound: Image) -> None:
    image = recached(sound, lambda value: value["hashes"]["checkpoint/photo.safetensors"].update(mtime=MTIME + 5.0))
    assert image.found("entry-other-mtime").severity == "info"


def test_an_entry_that_contradicts_the_content_named_path(sound: Image) -> None:
    image = recached(sound, lambda value: value["hashes"]["checkpoint/photo.safetensors"].update(sha256="a" * 64))
    finding = image.found("entry-contradicts")
    assert finding.paths[1].startswith("/opt/weights/sha256/")


def test_an_entry_that_contradicts_a_file_of_a_compressed_layer(sound: Image) -> None:
    big = model(seed=9, size=17 * 1024 * 1024)
    image = sound.plant({f"{CHECKPOINTS}/photo.safetensors": big}, compression="zstd")
    assert image.ids() == {"entry-contradicts"}


def test_forges_hash_of_a_lora_in_a1111_and_the_other_way_round(sound: Image) -> None:
    view = sound.view()
    (lora,) = view.of_type("lora")
    whole = lora.placed.content.sha256
    forged = recached(sound, lambda value: value["hashes-addnet"]["lora/ink"].update(sha256=whole))
    assert "Forge" in forged.found("entry-contradicts").what
    forge = {f"{ROOT}/modules_forge/config.py": "x"}
    assert forged.plant(forge).ids() == set()
    assert sound.plant(forge).ids() == {"entry-contradicts"}


def test_a_lora_that_names_its_hash_itself_needs_no_entry(sound: Image) -> None:
    named = model(("lora_te_x",), metadata={"sshs_model_hash": "f" * 64})
    image = sound.plant({f"{ROOT}/models/Lora/named.safetensors": named})
    assert image.ids() == {"metadata-not-cached"}
    assert "model-not-hashed" in sound.plant({f"{ROOT}/models/Lora/b.safetensors": model(("lora_te_x",))}).ids()


@pytest.mark.parametrize(
    ("version", "missing"),
    [("1.10.1", {"checkpoint", "lora"}), ("1.6.1", {"checkpoint", "lora"}), ("1.5.2", {"lora"}), ("1.4.0", set())],
)
def test_metadata_by_release(sound: Image, version: str, missing: set[str]) -> None:
    image = recached(sound, lambda value: value.pop("safetensors-metadata"))
    image = image.plant({f"{ROOT}/CHANGELOG.md": f"## {version}\n"})
    findings = [f for f in image.findings() if f.id == "metadata-not-cached"]
    kinds = {"lora" if "/Lora/" in f.paths[0] else "checkpoint" for f in findings}
    assert kinds == missing


@pytest.mark.parametrize(
    ("version", "hashed"),
    [("1.10.1", {"lora", "vae", "embedding"}), ("1.5.2", {"lora", "embedding"}), ("1.4.0", {"lora"}), ("1.2.1", set())],
)
def test_what_is_hashed_by_release(sound: Image, version: str, hashed: set[str]) -> None:
    image = sound.plant({f"{ROOT}/CHANGELOG.md": f"## {version}\n", CACHE: json.dumps({"hashes": {}})})
    words = {f.what.split()[1] for f in image.findings() if f.id == "model-not-hashed"}
    assert words == hashed | {"checkpoint", "hypernetwork"}


def test_several_vaes(sound: Image) -> None:
    image = sound.plant({f"{ROOT}/models/VAE/other.vae.pt": b"x" * 5000})
    assert image.ids() == {"several-vaes"}
    assert image.found("several-vaes").cost.hashed == 5000
    # one beside a checkpoint is a VAE, too, and no checkpoint
    assert sound.plant({f"{CHECKPOINTS}/photo.vae.safetensors": b"x" * 5000}).ids() == {"several-vaes"}
    assert image.plant({f"{ROOT}/CHANGELOG.md": "## 1.5.2\n"}).ids() == set()


def test_colliding_keys(sound: Image) -> None:
    twin = sound.plant({f"{ROOT}/models/Lora/sub/ink.safetensors": link("../ink.safetensors")})
    finding = twin.found("keys-collide")
    assert {f"/{ROOT}/models/Lora/ink.safetensors", f"/{ROOT}/models/Lora/sub/ink.safetensors"} == set(finding.paths)
    other = sound.plant({"data/ckpt/photo.safetensors": model(seed=1)})
    assert other.ids() == set()
    assert "keys-collide" in other.configured(Cmd=["python3", f"/{ROOT}/webui.py", "--ckpt-dir", "/data/ckpt"]).ids()


def test_a_directory_that_hides_the_cache(sound: Image) -> None:
    image = sound.plant({f"{ROOT}/cache": directory()})
    finding = image.found("cache-hidden")
    assert finding.severity == "error" and finding.paths[0] == f"/{ROOT}/cache"
    assert "model-not-hashed" in image.ids()
    assert image.plant({f"{ROOT}/CHANGELOG.md": "## 1.8.0\n"}).ids() == set()
    # another directory is asked for
    assert image.configured(env={"SD_WEBUI_CACHE_DIR": "/tmp/cache"}).ids() == set()
    assert "cache-hidden" in sound.plant({"tmp/c": directory()}).configured(env={"SD_WEBUI_CACHE_DIR": "/tmp/c"}).ids()


def test_the_webuis_own_database_is_not_judged(sound: Image) -> None:
    image = sound.plant({f"{ROOT}/cache/hashes/cache.db": b"SQLite", CACHE: None})
    assert image.ids() == set()
    assert image.found("cache-database").severity == "info"


def test_a_cache_elsewhere(sound: Image) -> None:
    value = json.dumps(cache_of(sound))
    for compression in ("none", "gzip"):
        image = sound.plant({CACHE: None, "data/x.json": value}, compression=compression)
        assert "model-not-hashed" in image.ids()
        assert image.configured(env={"SD_WEBUI_CACHE_FILE": "/data/x.json"}).ids() == set()
    script = "export SD_WEBUI_CACHE_FILE=/data/x.json\nexec python webui.py\n"
    image = sound.plant({CACHE: None, "data/x.json": value, "start.sh": script}, compression="gzip")
    assert image.configured(Cmd=["/start.sh"]).ids() == {"cache-unread"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"hashes": []}', "\x00", "[" * 5000, '{"hashes": 1}'])
def test_a_corrupt_cache(sound: Image, text: str) -> None:
    ids = sound.plant({CACHE: text}).ids()
    assert "cache-corrupt" in ids and "model-not-hashed" in ids


def test_a_cache_of_a_gigabyte_is_refused(sound: Image) -> None:
    info = tarfile.TarInfo(CACHE)
    info.size = 1024**3
    image = sound.hole(info.tobuf(tarfile.GNU_FORMAT), 1024**3 + 1024)
    with pytest.raises(Unreadable, match=r"cache\.json cannot be audited"):
        image.findings()


def test_a_cache_dir_that_the_user_cannot_make(sound: Image) -> None:
    image = sound.configured(User="1000:1000")
    finding = image.found("cache-not-writable")
    assert finding.severity == "error" and finding.paths == (f"/{ROOT}/cache", f"/{ROOT}")
    assert image.plant({ROOT: directory(uid=1000)}).ids() == set()
    assert image.plant({"tmp": directory(mode=0o1777)}).configured(env={"SD_WEBUI_CACHE_DIR": "/tmp/c"}).ids() == set()
    assert image.configured(Volumes={f"/{ROOT}/cache": {}}).ids() == set()
    assert image.plant({f"{ROOT}/CHANGELOG.md": "## 1.8.0\n"}).ids() == set()
    named = sound.plant({"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nrunner:x:1001:1001::/home/runner:/bin/sh\n"})
    assert named.configured(User="runner").ids() == {"cache-not-writable"}
    assert named.configured(User="root").ids() == set()


def test_sd2_without_its_configuration(sound: Image) -> None:
    path = f"{CHECKPOINTS}/photo.safetensors"
    for compression in ("none", "gzip"):
        image = sound.plant({path: model(SD2, seed=5)}, compression=compression)
        assert image.found("sd2-without-yaml").paths == (f"/{path}",)
        assert "sd2-without-yaml" not in image.plant({f"{CHECKPOINTS}/photo.yaml": "model: {}"}).ids()


VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text())


@pytest.mark.parametrize("version", sorted(VECTORS["stored"]))
def test_what_the_webui_itself_stored_is_valid(tmp_path: Path, version: str) -> None:
    files: dict[str, Any] = {
        "webui/webui.py": "",
        "webui/modules/shared.py": "",
        "webui/CHANGELOG.md": f"## {version}\n",
    }
    for file in VECTORS["files"]:
        header = (file["header"] or "").encode()
        head = len(header).to_bytes(8, "little") + header if file["header"] is not None else b""
        files[f"webui/{file['path']}"] = Item(
            data=head + bytes([file["byte"]]) * file["length"], mtime=VECTORS["mtime"]
        )
    files["webui/cache.json"] = json.dumps(VECTORS["stored"][version])
    image = empty(tmp_path / "out").plant(files)
    assert len(image.view().models) == len(VECTORS["files"])
    ids = {f.id for f in image.findings()}
    assert not ids & {
        "model-not-hashed",
        "metadata-not-cached",
        "entry-stale",
        "entry-other-mtime",
        "entry-contradicts",
    }
    without = image.plant({"webui/cache.json": "{}"}).findings()
    entries = sum(len(section) for section in VECTORS["stored"][version].values())
    found = [f for f in without if f.id in ("model-not-hashed", "metadata-not-cached")]
    assert len(found) == entries


def test_the_checkpoint_that_the_settings_name_is_hashed_at_start(sound: Image) -> None:
    image = sound.plant({CACHE: "{}", f"{ROOT}/config.json": '{"sd_model_checkpoint": "sub/paint.safetensors [abc]"}'})
    at_start = [f.paths for f in image.findings() if f.id == "model-not-hashed" and f.cost.when == "start"]
    assert at_start == [(f"/{CHECKPOINTS}/sub/paint.safetensors",)]
    for nonsense in ("[", "[]", '{"sd_model_checkpoint": 1}'):
        assert "model-not-hashed" in image.plant({f"{ROOT}/config.json": nonsense}).ids()

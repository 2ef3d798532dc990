"""Planted: look-ups in the Hugging Face cache that miss, break, or go to the network."""

from __future__ import annotations

import pytest

from audit.planting import CLIP, CLIP_FILES, COMMIT, HUB, ROOT, SD2, SD3, Entries, Image, directory, link, model

CHECKPOINT = f"{ROOT}/models/Stable-diffusion/photo.safetensors"
T5 = f"{HUB}/models--google--t5-v1_1-xxl"
T5_FILES = ("spiece.model", "special_tokens_map.json", "tokenizer_config.json")


def repository(root: str, files: tuple[str, ...]) -> Entries:
    return {f"{root}/refs/main": COMMIT, **{f"{root}/snapshots/{COMMIT}/{name}": "{}" for name in files}}


def test_without_the_variable_the_hub_is_asked(sound: Image) -> None:
    finding = sound.configured(env={"HF_HUB_OFFLINE": None}).found("hf-online")
    assert finding.severity == "warning" and finding.cost.seconds > 40
    image = sound.configured(env={"HF_HUB_OFFLINE": None, "TRANSFORMERS_OFFLINE": "1"})
    assert "TRANSFORMERS_OFFLINE" in image.found("hf-online").what
    assert sound.configured(env={"HF_HUB_OFFLINE": "true"}).ids() == set()


def test_a_script_may_set_the_variables(sound: Image) -> None:
    script = (
        '#!/bin/sh\nexport HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"\nexport HF_HOME=/opt/huggingface\npython webui.py\n'
    )
    image = sound.plant({"start.sh": script}, compression="gzip")
    image = image.configured(
        env={"HF_HUB_OFFLINE": None, "HF_HOME": None}, Entrypoint=["/bin/sh", "-c"], Cmd=["/start.sh"]
    )
    assert image.ids() == set()


def test_no_cache_where_clients_look(sound: Image) -> None:
    image = sound.configured(env={"HF_HOME": None})
    assert image.ids() == {"hf-repository-missing", "hf-hub-elsewhere"}
    assert image.found("hf-repository-missing").paths[0].startswith("/root/.cache/huggingface/hub/models--openai")
    assert image.found("hf-hub-elsewhere").paths == (f"/{HUB}",)
    moved = image.plant({"root/.cache/huggingface": link("/opt/huggingface")})
    assert moved.ids() == set()
    assert image.configured(env={"HF_HUB_CACHE": f"/{HUB}"}).ids() == set()


def test_no_cache_at_all(sound: Image) -> None:
    offline = sound.plant({HUB: None}).found("hf-repository-missing")
    assert offline.severity == "error" and "fails" in offline.what and "clip-l14" in offline.hint
    online = sound.plant({HUB: None}).configured(env={"HF_HUB_OFFLINE": None}).found("hf-repository-missing")
    assert online.cost.seconds > 100


@pytest.mark.parametrize("name", CLIP_FILES)
def test_a_file_that_is_asked_for(sound: Image, name: str) -> None:
    finding = sound.plant({f"{CLIP}/snapshots/{COMMIT}/{name}": None}).found("hf-file-missing")
    assert finding.paths == (f"/{CLIP}/snapshots/{COMMIT}/{name}",)


def test_a_file_known_to_be_absent_without_its_marker(sound: Image) -> None:
    image = sound.plant({f"{CLIP}/.no_exist": None})
    assert image.found("hf-no-marker").severity == "info"
    online = image.configured(env={"HF_HUB_OFFLINE": None}).found("hf-no-marker")
    assert online.severity == "warning" and online.cost.seconds == 23


@pytest.mark.parametrize("text", [f"{COMMIT}\n", "main", "", f"{COMMIT.upper()}"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_broken_ref(sound: Image, text: str, compression: str) -> None:
    image = sound.plant({f"{CLIP}/refs/main": text}, compression=compression)
    assert image.ids() == {"hf-ref-broken"}
    assert ("newline" in image.found("hf-ref-broken").what) == text.endswith("\n")


def test_a_ref_to_nowhere_and_no_ref(sound: Image) -> None:
    assert sound.plant({f"{CLIP}/refs/main": "a" * 40}).ids() == {"hf-ref-dangling"}
    assert sound.plant({f"{CLIP}/refs": None}).ids() == {"hf-repository-missing"}


def test_links_that_lead_nowhere(sound: Image) -> None:
    image = sound.plant({f"{CLIP}/blobs": None})
    assert image.ids() == {"hf-link-dangling", "hf-file-missing"}
    assert len(image.found("hf-link-dangling").paths) == len(CLIP_FILES)


def test_what_a_cache_should_hold_and_what_not(sound: Image) -> None:
    assert sound.plant({f"{HUB}/version.txt": None}).ids() == {"hf-no-version"}
    assert sound.plant({f"{CLIP}/trees/{COMMIT}.json": "{}"}).found("hf-stray").severity == "warning"
    assert sound.plant({f"{HUB}/.locks/x/y.lock": ""}).found("hf-stray").severity == "info"


def test_sd3_needs_t5_from_1_10_on(sound: Image) -> None:
    # a plain file of its own: the approximation is another matter
    image = sound.plant({CHECKPOINT: model(SD3), f"{ROOT}/models/VAE-approx/vaeapprox-sd3.pt": "x"})
    assert "t5-v1_1-xxl" in image.found("hf-repository-missing").what
    assert "hf-repository-missing" not in image.plant(repository(T5, T5_FILES)).ids()
    assert "hf-repository-missing" not in image.plant({f"{ROOT}/CHANGELOG.md": "## 1.9.4\n"}).ids()


def test_sd2_alone_needs_nothing(sound: Image) -> None:
    image = sound.plant({f"{ROOT}/models/Stable-diffusion/sub": None, CHECKPOINT: model(SD2), HUB: None})
    assert "hf-repository-missing" not in image.ids()


def test_the_interrogator_needs_bert(sound: Image) -> None:
    image = sound.plant({f"{ROOT}/models/BLIP/model_base_caption_capfilt_large.pth": b"x"})
    assert "bert" in image.found("hf-repository-missing").what
    root = f"{HUB}/models--bert-base-uncased"
    assert image.plant(repository(root, ("vocab.txt", "tokenizer_config.json", "config.json"))).ids() == set()


def test_an_empty_folder_is_no_cache(sound: Image) -> None:
    assert sound.plant({f"{HUB}/models--a--b": directory(), f"{HUB}/other": directory()}).ids() == set()

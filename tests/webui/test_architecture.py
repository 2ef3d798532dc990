"""What a checkpoint is, by the names of its tensors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layerbuild.digests import header_facts
from layerbuild.webui.architecture import architecture, family
from layerbuild.webui.safetensors import PREFIX

UNET = "model.diffusion_model.input_blocks.0.0.weight"


def header(*names: str, channels: int = 4) -> dict[str, Any]:
    tensors = {name: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]} for name in names}
    return {"__metadata__": {"a": "b"}, UNET: {"dtype": "F16", "shape": [320, channels, 3, 3]}, **tensors}


SD1 = "cond_stage_model.transformer.text_model.embeddings.position_ids"
SD2 = "cond_stage_model.model.ln_final.weight"
XL_ONE = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"
XL_TWO = "conditioner.embedders.1.model.ln_final.weight"
REFINER = "conditioner.embedders.0.model.ln_final.weight"
SD3 = "model.diffusion_model.joint_blocks.0.context_block.attn.proj.weight"


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (header(SD1), "sd1"),
        (header(SD2), "sd2"),
        (header(XL_ONE, XL_TWO), "sdxl"),
        (header(XL_TWO, XL_ONE), "sdxl"),
        (header(REFINER), "sdxl-refiner"),
        (header(SD3), "sd3"),
        (header(SD1, channels=9), "sd1-inpainting"),
        (header(XL_ONE, XL_TWO, channels=9), "sdxl-inpainting"),
        (header(), None),
        ({}, None),
        ({"lora_unet_down_blocks_0_attentions_0.lora_down.weight": {}}, None),
    ],
)
def test_architectures(tensors: dict[str, Any], expected: str | None) -> None:
    assert architecture(tensors) == expected


def test_architecture_is_a_fact() -> None:
    text = json.dumps({SD1: {"dtype": "F16", "shape": [1, 1], "data_offsets": [0, 2]}}).encode()
    assert header_facts(text, PREFIX + len(text) + 2).architecture == "sd1"


@pytest.mark.parametrize("shape", [None, [], [320], "9", [320, "9"], {"1": 9}, 9])
def test_shapes_that_are_none_are_no_masks(shape: Any) -> None:
    assert architecture({SD1: {}, UNET: {"shape": shape}}) == "sd1"
    assert architecture({SD1: {}, UNET: shape}) == "sd1"


def test_families() -> None:
    assert (family("sd1-inpainting"), family("sdxl-refiner"), family(None)) == ("sd1", "sdxl-refiner", None)

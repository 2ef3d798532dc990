"""What a model is, by the names of its tensors."""

from __future__ import annotations

import pytest

from layerbuild.webui.modeltypes import type_of_place
from layerbuild.webui.tensortypes import type_of_tensors

CLIP = "cond_stage_model.transformer.text_model.embeddings.position_ids"
UNET = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([CLIP, UNET, "first_stage_model.decoder.conv_in.weight"], "checkpoint"),
        ([UNET], "checkpoint"),
        (["model.diffusion_model.joint_blocks.0.x", "text_encoders.clip_l.x"], "checkpoint"),
        (["lora_unet_down_blocks_0.lora_down.weight"], "lora"),
        (["lora_te_text_model.hada_w1_a"], "lora"),
        (["unet.down_blocks.0.lora_A.weight"], "lora"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "vae"),
        (["first_stage_model.decoder.conv_in.weight"], "vae"),
        (["emb_params"], "embedding"),
        (["clip_g", "clip_l"], "embedding"),
        (["control_model.input_blocks.0.0.weight", "model.diffusion_model.x"], "controlnet"),
        (["controlnet_cond_embedding.conv_in.weight"], "controlnet"),
        (["lllite_unet_x.conditioning1.0.weight"], "controlnet"),
        (["ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"], "controlnet"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "upscaler"),
        (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], "upscaler"),
        (["down_blocks.0.resnets.0.conv1.weight"], None),
        (["clip_l", "other"], None),
        ([], None),
    ],
)
def test_names_of_tensors_tell(names: list[str], found: str | None) -> None:
    assert type_of_tensors({name: {} for name in names}) == found


def test_metadata_alone_tells_nothing_but_helps() -> None:
    trained = {"ss_network_module": "networks.oft"}
    assert type_of_tensors({"__metadata__": trained}) is None
    assert type_of_tensors({"__metadata__": trained, "lora_unet_x.alpha": {}}) == "lora"
    assert type_of_tensors({"__metadata__": trained, "a": {}}) is None
    assert type_of_tensors({"__metadata__": 5, "lora_unet_x.alpha": {}}) is None


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/w/models/Stable-diffusion/sub/a.ckpt", "checkpoint"),
        ("models/Lora/a.pt", "lora"),
        ("embeddings/a.pt", "embedding"),
        ("models/VAE-approx/a.pt", "vae-approx"),
        ("Lora/VAE/a.pt", "vae"),
        ("a/b.ckpt", None),
        ("lora", None),
    ],
)
def test_directories_tell(path: str, found: str | None) -> None:
    assert type_of_place(path) == found

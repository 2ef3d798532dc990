"""What type of model a safetensors file is, by the names of its tensors. Nothing of the tensors is read.

The names are those by which the webui and its extensions load each type: `modules/sd_models.py`,
`modules/textual_inversion/textual_inversion.py`, `extensions-builtin/Lora/`, sd-webui-controlnet's
`scripts/controlnet_model_guess.py`, and spandrel's detection of upscalers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerbuild.webui.architecture import architecture

_CONTROLNET = (
    *("control_model.", "controlnet_cond_embedding.", "input_hint_block.", "zero_convs.", "lllite_", "lllite."),
    *("adapter.body.", "body.0.resnets.", "ip_adapter.", "image_proj."),
)
_LORA = ("lora_unet", "lora_te", "lycoris_", "unet.down_blocks.", "text_encoder.text_model.")
_LORA_PARTS = (
    *(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", ".lokr_w", ".hada_w"),
    *(".oft_", ".dora_scale", ".glora"),
)
_EMBEDDING = frozenset(("emb_params", "clip_g", "clip_l", "<UNKNOWN>"))
_VAE = ("first_stage_model.decoder.", "decoder.conv_in.", "decoder.mid.", "decoder.mid_block.")
_CHECKPOINT = ("model.diffusion_model.",)
_UPSCALER = ("conv_first.", "model.1.sub.", "RRDB_trunk.", "layers.0.residual_group.", "upconv1.")


def type_of_tensors(header: Mapping[str, Any]) -> str | None:
    """`checkpoint`, `lora`, `vae`, `embedding`, `controlnet` or `upscaler`; None where the names do not tell.

    Args:
        header: a safetensors header, `__metadata__` included.
    """
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return None
    if _begins(names, _CONTROLNET):
        return "controlnet"
    if _is_lora(names, header.get("__metadata__")):
        return "lora"
    if architecture(header) is not None or _begins(names, _CHECKPOINT):
        return "checkpoint"
    if _begins(names, _VAE):
        return "vae"
    if _EMBEDDING.issuperset(names):
        return "embedding"
    return "upscaler" if _begins(names, _UPSCALER) else None


def _begins(names: list[str], marks: tuple[str, ...]) -> bool:
    return any(name.startswith(marks) for name in names)


def _is_lora(names: list[str], metadata: object) -> bool:
    if any(part in name for name in names for part in _LORA_PARTS):
        return True
    trained = isinstance(metadata, dict) and "ss_network_module" in metadata
    return trained and _begins(names, _LORA)

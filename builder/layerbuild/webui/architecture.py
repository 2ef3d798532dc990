"""What a checkpoint is, by the names and shapes of its tensors. Nothing of the tensors is read.

The names are those of the reference implementations' state dicts, by which the webui's
`modules/sd_models_config.py` tells them apart too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Architecture = Literal["sd1", "sd2", "sdxl", "sdxl-refiner", "sd3"]

_FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
_INPAINTING_CHANNELS = 9

_MARKS: tuple[tuple[str, Architecture], ...] = (
    ("model.diffusion_model.joint_blocks.", "sd3"),
    ("model.diffusion_model.x_embedder.", "sd3"),
    ("conditioner.embedders.1.", "sdxl"),
    ("conditioner.embedders.0.transformer.", "sdxl"),
    ("conditioner.embedders.0.model.", "sdxl-refiner"),
    ("cond_stage_model.model.", "sd2"),
    ("cond_stage_model.transformer.", "sd1"),
)
"""Beginnings of tensor names, the most telling first: SDXL has both embedders, its refiner only what is
SDXL's second."""


def architecture(tensors: Mapping[str, Any]) -> str | None:
    """`sd1`, `sd2`, `sdxl`, `sdxl-refiner` or `sd3`, with `-inpainting` where it takes a mask; None for
    anything else, a Lora for example.

    Args:
        tensors: a safetensors header.
    """
    names = [name for name in tensors if isinstance(name, str)]
    for mark, kind in _MARKS:
        if any(name.startswith(mark) for name in names):
            return f"{kind}-inpainting" if _takes_mask(tensors) else kind
    return None


def family_of_beginning(header: bytes) -> Architecture | None:
    """By a safetensors header or the beginning of one, without parsing it; None where it does not tell.

    Tensors are named in order, so that the first few KiB usually do.
    """
    return next((kind for mark, kind in _MARKS if f'"{mark}'.encode() in header), None)


def family(found: str | None) -> str | None:
    """The architecture without `-inpainting`."""
    return found.removesuffix("-inpainting") if found else None


def _takes_mask(tensors: Mapping[str, Any]) -> bool:
    """Latent, mask and masked latent make nine input channels instead of four."""
    first = tensors.get(_FIRST_CONVOLUTION)
    shape = first.get("shape") if isinstance(first, dict) else None
    return isinstance(shape, list) and len(shape) > 1 and shape[1] == _INPAINTING_CHANNELS

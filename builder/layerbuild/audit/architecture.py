"""Which model a checkpoint is, by the names of its tensors.

The names by which the webui's `modules/sd_models_config.py` (`guess_model_config_from_state_dict`)
tells them apart. A header names its tensors in order, so its beginning usually decides.
"""

from __future__ import annotations

from typing import Literal

Architecture = Literal["sd1", "sd2", "sdxl", "sdxl-refiner", "sd3"]

_SIGNS: tuple[tuple[bytes, Architecture], ...] = (
    (b'"cond_stage_model.model.', "sd2"),
    (b'"cond_stage_model.transformer.', "sd1"),
    # the refiner's first embedder is the base's second
    (b'"conditioner.embedders.0.model.', "sdxl-refiner"),
    (b'"conditioner.embedders.0.transformer.', "sdxl"),
    (b'"conditioner.embedders.1.', "sdxl"),
    (b'"model.diffusion_model.x_embedder.', "sd3"),
    (b'"model.diffusion_model.joint_blocks.', "sd3"),
)


def architecture(header: bytes) -> Architecture | None:
    """By a safetensors header or the beginning of one; None where it does not tell."""
    return next((name for sign, name in _SIGNS if sign in header), None)

"""What the webui fetches for each architecture of checkpoint, and the catalog layers that bring it.

From the webui's `modules/sd_vae_approx.py`, `modules/sd_models_config.py`, `modules/sd_hijack.py` and
`modules/models/sd3/`, release 1.10.1.
"""

from __future__ import annotations

from dataclasses import dataclass

CLIP = "openai/clip-vit-large-patch14"
T5 = "google/t5-v1_1-xxl"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a start with one architecture asks for.

    Attributes:
        since: the first release that knows the architecture.
        repositories: Hugging Face repository and catalog layer with its snapshot.
        files: path below the models directory and catalog layer, fetched at the first generation.
        configuration: whether a `<name>.yaml` beside the checkpoint spares a trial run of the model.
    """

    since: tuple[int, ...] = ()
    repositories: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    configuration: bool = False


_SDXL_PREVIEW = (("VAE-approx/vaeapprox-sdxl.pt", "vaeapprox-sdxl"),)

NEEDS = {
    "sd1": Needs(repositories=((CLIP, "clip-l14"),)),
    "sd2": Needs(configuration=True),
    "sdxl": Needs(since=(1, 5), repositories=((CLIP, "clip-l14"),), files=_SDXL_PREVIEW),
    "sdxl-refiner": Needs(since=(1, 6), files=_SDXL_PREVIEW),
    "sd3": Needs(
        since=(1, 10),
        repositories=((CLIP, "clip-l14"), (T5, "t5-v1_1-xxl-tokenizer")),
        files=(("VAE-approx/vaeapprox-sd3.pt", "vaeapprox-sd3"),),
    ),
}

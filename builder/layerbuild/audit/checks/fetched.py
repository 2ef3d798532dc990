"""Files that the webui would fetch: at its start, or when something is first used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from layerbuild.audit.costs import downloading
from layerbuild.audit.findings import Finding
from layerbuild.audit.view import ImageView

DEFAULT_CHECKPOINT = 4_265_146_304
"""Bytes of v1-5-pruned-emaonly.safetensors."""

_APPROXIMATION = 213_777
"""Bytes of one VAE approximation."""


@dataclass(frozen=True, kw_only=True)
class Helper:
    """A file that is fetched on first use. `anchor` and `path` say where the webui looks."""

    path: str
    purpose: str
    layer: str
    anchor: Literal["models", "root"] = "models"


_HELPERS = (
    Helper(path="Codeformer/codeformer-v0.1.0.pth", purpose="CodeFormer", layer="codeformer"),
    Helper(path="GFPGAN/GFPGANv1.4.pth", purpose="GFPGAN", layer="gfpgan"),
    Helper(path="GFPGAN/detection_Resnet50_Final.pth", purpose="face restoration", layer="facexlib-detection"),
    Helper(path="GFPGAN/parsing_parsenet.pth", purpose="face restoration", layer="facexlib-parsing"),
    Helper(path="BLIP/model_base_caption_capfilt_large.pth", purpose="the interrogator", layer="interrogate-blip"),
    Helper(path="torch_deepdanbooru/model-resnet_custom_v3.pt", purpose="DeepDanbooru", layer="deepbooru"),
    Helper(path="interrogate/artists.txt", purpose="the interrogator", layer="interrogate-categories", anchor="root"),
)

_TAESD = {
    "sd1": ("taesd_decoder.pth", "taesd-sd1"),
    "sd2": ("taesd_decoder.pth", "taesd-sd1"),
    "sdxl": ("taesdxl_decoder.pth", "taesd-sdxl"),
    "sd3": ("taesd3_decoder.pth", "taesd-sd3"),
}


def check(view: ImageView) -> Iterator[Finding]:
    """The checkpoint itself, VAE approximations, and helpers of single features."""
    if view.webui is None:
        return
    yield from _checkpoint(view)
    kinds = {view.architecture(model) for model in view.of_type("checkpoint")}
    if kinds & {"sdxl", "sdxl-refiner"}:
        yield from _approximation(view, "sdxl")
    if "sd3" in kinds and view.webui.since(1, 10):
        yield from _approximation(view, "sd3")
    previews = {_TAESD[kind] for kind in kinds if kind in _TAESD}
    helpers = [
        *_HELPERS,
        *(Helper(path=f"VAE-taesd/{n}", purpose="TAESD previews", layer=layer) for n, layer in previews),
    ]
    missing = [(path, helper) for helper in helpers if not view.files.file(path := _place(view, helper))]
    if missing:
        purposes = sorted({helper.purpose for _, helper in missing})
        layers = sorted({helper.layer for _, helper in missing})
        yield Finding(
            id="fetched-on-use",
            severity="info",
            paths=(*(path for path, _ in missing),),
            what=f"downloaded when they are first used, if ever: {', '.join(purposes)}",
            # nobody pays for what is never used, so it stays out of the total
            hint=f"for those that are used, add the catalog layers: {', '.join(layers)}",
        )


def _checkpoint(view: ImageView) -> Iterator[Finding]:
    if view.of_type("checkpoint") or view.webui is None:
        return
    kept = "--no-download-sd-model" in view.command.flags or "--ckpt" in view.command.flags
    yield Finding(
        id="no-checkpoint",
        severity="info" if kept else "error",
        paths=(view.webui.directories["checkpoint"][0],),
        what="no checkpoint is in the image: "
        + ("one has to be mounted" if kept else "the webui downloads Stable Diffusion 1.5 at each start"),
        cost=downloading(0 if kept else DEFAULT_CHECKPOINT, "start"),
        hint="add a checkpoint, or start with --no-download-sd-model where one is mounted",
    )


def _approximation(view: ImageView, kind: str) -> Iterator[Finding]:
    assert view.webui is not None
    path = f"{view.webui.models_dir}/VAE-approx/vaeapprox-{kind}.pt"
    if not view.files.file(path):
        yield Finding(
            id="vae-approx-missing",
            severity="warning",
            paths=(path,),
            what=f"the first {kind.upper()} image downloads this VAE approximation, in API mode too",
            cost=downloading(_APPROXIMATION),
            hint=f"add the catalog layer vaeapprox-{kind}",
        )


def _place(view: ImageView, helper: Helper) -> str:
    assert view.webui is not None
    return f"{view.webui.models_dir if helper.anchor == 'models' else view.webui.root}/{helper.path}"

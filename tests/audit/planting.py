"""Images to audit: a sound one that layerbuild itself made, layers put on top of it, and images from nothing."""

from __future__ import annotations

import gzip
import io
import json
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zstandard

from fixtures.pickles import state_dict, torch_zip
from fixtures.project import Project
from fixtures.registry import MemoryBlob, digest_of
from layerbuild import http
from layerbuild.audit import checks
from layerbuild.audit.findings import Finding
from layerbuild.audit.limits import Limits
from layerbuild.audit.view import ImageView, open_image
from layerbuild.baseimage import open_base
from layerbuild.destinations import open_destination
from layerbuild.model import MTIME
from layerbuild.progress import Silent
from layerbuild.registry.clients import Clients
from layerbuild.registry.manifests import MANIFEST_TYPE

TAR = "application/vnd.oci.image.layer.v1.tar"
COMMIT = "32bd64288804d66eefd0ccbe215aa642df71cc41"
CLIP_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "config.json")
ROOT = "srv/webui"
HUB = "opt/huggingface/hub"
CLIP = f"{HUB}/models--openai--clip-vit-large-patch14"

SD1 = ("cond_stage_model.transformer.text_model.embeddings.position_ids", "model.diffusion_model.out.0.bias")
SD2 = ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", "model.diffusion_model.out.0.bias")
SDXL = ("conditioner.embedders.0.transformer.text_model.x", "conditioner.embedders.1.model.ln_final.weight")
REFINER = ("conditioner.embedders.0.model.ln_final.weight",)
SD3 = ("first_stage_model.decoder.conv_in.bias", "model.diffusion_model.x_embedder.proj.weight")


def model(
    names: tuple[str, ...] = SD1, *, size: int = 1000, seed: int = 1, metadata: Mapping[str, str] | None = None
) -> bytes:
    """A safetensors file whose tensors have these names, `size` bytes of them."""
    offsets = [size * i // len(names) for i in range(len(names) + 1)]
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata is not None else {}
    header |= {
        n: {"dtype": "U8", "shape": [b - a], "data_offsets": [a, b]}
        for n, a, b in zip(names, offsets, offsets[1:], strict=False)
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes([seed]) * size


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of a layer: a file of `data`, or of `size` zeros, a symlink, a hard link or a directory."""

    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    target: str = ""
    mtime: float = MTIME
    mode: int = 0o644
    uid: int = 0


def link(target: str) -> Item:
    return Item(type=tarfile.SYMTYPE, target=target)


def hardlink(target: str) -> Item:
    return Item(type=tarfile.LNKTYPE, target=target)


def directory(mode: int = 0o755, uid: int = 0) -> Item:
    return Item(type=tarfile.DIRTYPE, mode=mode, uid=uid)


Entries = Mapping[str, "Item | bytes | str | None"]
"""Path -> what is there: text or bytes of a file, an `Item`, or None for a whiteout."""


def tar(entries: Entries) -> bytes:
    """A layer's tar, in the order of `entries`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, value in entries.items():
            name, item = path, value
            if item is None:
                name = posixpath.join(posixpath.dirname(path), f".wh.{posixpath.basename(path)}")
                item = b""
            if isinstance(item, str):
                item = item.encode()
            if isinstance(item, bytes):
                item = Item(data=item)
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime, info.mode, info.uid = (
                item.type, item.target, item.mtime, item.mode, item.uid,
            )  # fmt: skip
            info.size = len(item.data)
            archive.addfile(info, io.BytesIO(item.data))
    return out.getvalue()


def pack(data: bytes, compression: str) -> tuple[str, bytes]:
    """Media type and blob of a layer."""
    if compression == "gzip":
        return f"{TAR}+gzip", gzip.compress(data, 1)
    if compression == "zstd":
        return f"{TAR}+zstd", zstandard.ZstdCompressor(level=1).compress(data)
    return TAR, data


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image in an OCI layout. `layers` are descriptors; `plant` makes another image on top."""

    layout: Path
    name: str
    config: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...] = ()

    def plant(self, entries: Entries | bytes, *, compression: str = "none") -> Image:
        """With one more layer: entries, or the bytes of a tar."""
        raw = entries if isinstance(entries, bytes) else tar(entries)
        return self.stack(*pack(raw, compression), diff_id=digest_of(raw))

    def stack(self, media_type: str, data: bytes, *, diff_id: str | None = None) -> Image:
        """With one more blob as a layer."""
        blob = MemoryBlob(data)
        self._destination.put(self.name, blob, advance=lambda amount: None)
        return self._with(media_type, blob.digest, blob.size, diff_id or blob.digest)

    def _with(self, media_type: str, digest: str, size: int, diff_id: str) -> Image:
        rootfs = {"type": "layers", "diff_ids": [*self.config.get("rootfs", {}).get("diff_ids", ()), diff_id]}
        descriptor = {"mediaType": media_type, "digest": digest, "size": size}
        return replace(self, layers=(*self.layers, descriptor), config={**self.config, "rootfs": rootfs})

    def hole(self, head: bytes, zeros: int) -> Image:
        """With a plain layer of `head` and that many zeros, which take no space. Its digest is another's."""
        digest = digest_of(head + str(zeros).encode())
        with (self.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).open("wb") as stream:
            stream.write(head)
            stream.truncate(len(head) + zeros)
        return self._with(TAR, digest, len(head) + zeros, digest)

    def configured(self, **changes: Any) -> Image:
        """With other values of the config's `config`; `env` is merged, None removes a variable."""
        runtime = dict(self.config.get("config") or {})
        env = changes.pop("env", {})
        old = dict(entry.partition("=")[::2] for entry in runtime.get("Env") or ())
        merged = {k: v for k, v in {**old, **env}.items() if v is not None}
        return replace(
            self,
            config={**self.config, "config": {**runtime, "Env": [f"{k}={v}" for k, v in merged.items()], **changes}},
        )

    def with_history(self, *lines: str) -> Image:
        """With further lines of history."""
        return replace(self, config={**self.config, "history": [{"created_by": line} for line in lines]})

    @property
    def _destination(self) -> Any:
        return open_destination(f"oci:{self.layout}", client_for=None, directory=Path("/"))

    def save(self, tag: str = "planted", *, config: bytes | None = None) -> str:
        """Writes config and manifest; gives the reference."""
        blob = MemoryBlob(json.dumps(self.config).encode() if config is None else config)
        self._destination.put(self.name, blob, advance=lambda amount: None)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": blob.digest,
                "size": blob.size,
            },
            "layers": list(self.layers),
        }
        self._destination.put_manifest(self.name, tag, MANIFEST_TYPE, json.dumps(manifest).encode())
        return f"oci:{self.layout}:{self.name}:{tag}"

    def view(self, limits: Limits | None = None) -> ImageView:
        """The image as the checks see it."""
        return view_of(self.save(), limits)

    def findings(self) -> list[Finding]:
        """Everything that the checks find."""
        return checks.run(self.view())

    def found(self, identity: str) -> Finding:
        """The worst finding of a kind."""
        findings = self.findings()
        finding = next((f for f in findings if f.id == identity), None)
        assert finding is not None, [f.id for f in findings]
        return finding

    def ids(self) -> set[str]:
        """Kinds of findings that are worse than information."""
        return {f.id for f in self.findings() if f.severity != "info"}


def view_of(reference: str, limits: Limits | None = None) -> ImageView:
    """The view of an image in a layout."""
    clients = Clients(http.Client(), {})
    source = open_base(reference, client_for=clients, project=Path("/"))
    (digest,) = source.platforms().values()
    return open_image(source, digest, client_for=clients, progress=Silent(), limits=limits)[0]


def empty(layout: Path, **config: Any) -> Image:
    """An image without layers."""
    return Image(
        layout=layout,
        name="made",
        config={"architecture": "amd64", "os": "linux", "config": {}, "history": [], **config},
    )


def load(layout: Path, name: str) -> Image:
    """The image `name:tag` of a layout, to plant on."""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = [e for e in index["manifests"] if e["annotations"]["org.opencontainers.image.ref.name"] == name]

    def blob(descriptor: Mapping[str, Any]) -> Any:
        data = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert digest_of(data) == descriptor["digest"]
        return json.loads(data)

    manifest = blob(entry)
    return Image(
        layout=layout,
        name=name.partition(":")[0],
        config=blob(manifest["config"]),
        layers=tuple({k: d[k] for k in ("mediaType", "digest", "size")} for d in manifest["layers"]),
    )


LAYERS = f"""
webui:
  kind: webui
  source: git+file:webui.git@main
  version: 1.10.1
clip:
  kind: huggingface
  source: file:clip
  repository: openai/clip-vit-large-patch14
  revision: {COMMIT}
  absent: [added_tokens.json]
photo: {{kind: model, type: checkpoint, source: file:photo.safetensors}}
paint: {{kind: model, type: checkpoint, source: file:paint.safetensors, filename: sub/paint.safetensors}}
ink: {{kind: model, type: lora, source: file:ink.safetensors}}
vae: {{kind: model, type: vae, source: file:vae.safetensors}}
easy: {{kind: model, type: embedding, source: file:easy.pt}}
hyper: {{kind: model, type: hypernetwork, source: file:hyper.pt}}
"""
RECIPE = f"""
name: sound
webui: {{root: /{ROOT}}}
layers: [webui, clip, photo, paint, ink, vae, easy, hyper]
config: {{cmd: [python3, /{ROOT}/webui.py, --nowebui, --api]}}
tags: [made]
"""
WEBUI = {
    "webui.py": b"",
    "CHANGELOG.md": b"## 1.10.1\n\n### Bug Fixes:\n* fix\n\n## 1.10.0\n",
    "modules/launch_utils.py": b"x = 1\n",
    "models/Stable-diffusion/Put Stable Diffusion checkpoints here.txt": b"",
}


def sound_project(project: Project, repository: Any) -> Image:
    """An image with every type of model, made and pushed by layerbuild."""
    repository.commit(WEBUI)
    project.write(
        {
            "layers/all.yaml": LAYERS,
            "recipes/sound.yaml": RECIPE,
            "photo.safetensors": model(seed=1, metadata={"modelspec.title": "Photo"}),
            "paint.safetensors": model(seed=2),
            "ink.safetensors": model(("lora_te_x",), seed=3, metadata={"ss_output_name": "ink"}),
            "vae.safetensors": model(("decoder.x",), seed=4),
            "easy.pt": torch_zip(state_dict(2)),
            "hyper.pt": torch_zip(state_dict(3)),
            **{f"clip/{name}": f'{{"{name}": 1}}' for name in CLIP_FILES},
        }
    )
    project.run("lock")
    project.run("push", "oci:out")
    return load(project.root / "out", "sound:made")

"""What is called safetensors must be: at lock time by its header, and again when its bytes arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builders import sha256
from execute.conftest import Works
from fixtures.hub import Hub
from fixtures.project import safetensors
from fixtures.web import Answer, Web
from layerbuild.errors import ProjectError, SourceError
from layerbuild.execute.lock import Locker
from layerbuild.execute.pinning import Options
from layerbuild.images import ImageDeclaration

_GOOD = safetensors(1000)
_SHORT = _GOOD[:-1]
_PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd]\n"


def _layer(source: str, more: str = "") -> str:
    return f"sd: {{kind: model, type: upscaler, source: '{source}'{more}}}\n"


def _lock(works: Works, images: tuple[ImageDeclaration, ...], **options: bool) -> object:
    context = works.context
    return Locker(
        images=images,
        old=works.lock(()),
        store=works.store,
        context=context,
        progress=context.progress,
        resolve_base=lambda *_: "",
        inspect_base=lambda *_: {},
        options=Options(**options),  # type: ignore[arg-type]
    ).run()


@pytest.mark.parametrize("data", [_SHORT, _PAGE, b"", _GOOD + b"x"], ids=["short", "page", "empty", "long"])
@pytest.mark.parametrize("where", ["hub", "file", "named by the image"])
def test_lock_refuses_it(works: Works, hub: Hub, data: bytes, where: str) -> None:
    name = "sd.bin" if where == "named by the image" else "sd.safetensors"
    hub.add("acme/sd", lfs={name: data})
    works.environ["HF_ENDPOINT"] = hub.endpoint
    works.write(name, data)
    source = f"file:{name}" if where == "file" else f"hf://acme/sd@main/{name}"
    images = works.images(_layer(source, ", filename: x.safetensors"), _RECIPE)
    with pytest.raises(SourceError, match="not a valid safetensors file") as caught:
        works.lock(images)
    assert caught.value.cause and caught.value.hint
    assert all("range" in r.headers for r in hub.cdn_requests)
    # The others can be locked.
    lock = _lock(works, images, keep_going=True)
    assert list(lock.unlocked) == ["sd"] and not lock.files and not lock.images  # type: ignore[attr-defined]


@pytest.mark.parametrize("placed", ["x.safetensors", "x.bin"])
def test_bytes_that_come_later_are_held_to_it(works: Works, web: Web, placed: str) -> None:
    """A declared digest and size pin a file that nobody can have a look at today."""
    web.route("/file", Answer(status=404))
    images = works.images(
        _layer(f"{web.url}/file", f", sha256: {sha256(_SHORT)}, size: {len(_SHORT)}, filename: {placed}"), _RECIPE
    )
    lock = works.lock(images)
    web.route("/file", _SHORT)
    builder = works.builder(images, lock)
    built = builder.run(images)
    if placed == "x.bin":
        assert not built.failed
        return
    (error,) = built.failed.values()
    assert "sd (x.safetensors) is not a valid safetensors file" in error.message and "tensors take" in str(error.cause)
    (layer,) = [layer for layer in builder.compose(images)[0].layers if layer.kind == "weights"]
    assert builder.packer.known(layer) is None


def test_snapshot_s_models_are_held_to_it(works: Works, hub: Hub) -> None:
    hub.add("acme/clip", files={"a.json": b"{}"}, lfs={"model.safetensors": _SHORT})
    works.environ["HF_ENDPOINT"] = hub.endpoint
    images = works.images("sd: {kind: huggingface, source: hf://acme/clip@main}\n", _RECIPE)
    (error,) = works.builder(images, works.lock(images)).run(images).failed.values()
    assert "sd (model.safetensors) is not a valid safetensors file" in error.message


def test_what_an_older_lock_let_pass(works: Works, new_works: Callable[[str], Works]) -> None:
    """A lock may say that a file is none: nothing is made of that."""
    from dataclasses import replace

    works.write("x", _SHORT)
    images = works.images(_layer("file:x", ", filename: x.bin"), _RECIPE)
    lock = works.lock(images)
    told = {name: replace(facts, safetensors=False) for name, facts in lock.files.items()}
    images = works.images(_layer("file:x", ", filename: x.safetensors"), _RECIPE)
    with pytest.raises((ProjectError, SourceError), match="not a valid safetensors file"):
        works.builder(images, replace(lock, files=told)).run(images)

"""Pickles are looked at before a layer that holds them is accepted, and what was found is remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from builders import sha256
from execute.conftest import Works
from fixtures.hub import Hub
from fixtures.pickles import calling, state_dict, torch_legacy, torch_zip
from layerbuild.errors import ProjectError, UnsafePickle
from layerbuild.execute.build import Built
from layerbuild.lockmodel import Lock
from layerbuild.model import LARGE
from layerbuild.pickles import scanner

_GOOD = torch_zip(state_dict(), {"0": bytes(LARGE)})
_EVIL = torch_zip(calling("os", "system"), {"0": bytes(LARGE)})
_LAYERS = "sd: {kind: model, type: checkpoint, source: file:sd.ckpt}\n"
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd]\n"


def _build(works: Works, layers: str, recipe: str, lock: Lock | None = None) -> tuple[Built, Lock]:
    images = works.images(layers, recipe)
    builder = works.builder(images, lock or works.lock(images))
    built = builder.run(images)
    return built, builder.record(built.images)


def _only(built: Built) -> UnsafePickle:
    (error,) = set(built.failed.values())
    assert isinstance(error, UnsafePickle)
    return error


def test_good_one_is_taken_and_the_lock_says_who_looked(works: Works) -> None:
    works.write("sd.ckpt", _GOOD)
    built, lock = _build(works, _LAYERS, _RECIPE)
    assert not built.failed and lock.files[sha256(_GOOD)].pickle == scanner()


def test_error_says_what_which_and_how(works: Works) -> None:
    works.write("sd.ckpt", _EVIL)
    error = _only(_build(works, _LAYERS, _RECIPE)[0])
    text = str(error)
    for words in ("sd (sd.ckpt)", "os.system", "picklescan", "pickle: allow", "safetensors"):
        assert words in text
    assert works.store.facts(sha256(_EVIL)) is not None
    assert works.store.facts(sha256(_EVIL)).pickle is None  # type: ignore[union-attr]


def test_recipe_may_allow_or_refuse_all(works: Works) -> None:
    works.write("sd.ckpt", _EVIL)
    built, lock = _build(works, _LAYERS, _RECIPE + "pickle: allow\n")
    assert not built.failed and lock.files[sha256(_EVIL)].pickle is None
    works.write("sd.ckpt", _GOOD)
    with pytest.raises(ProjectError, match=r"sd\.ckpt is loaded by pickle, which image worker refuses"):
        _build(works, _LAYERS, _RECIPE + "pickle: refuse\n")


def test_what_one_image_allows_another_does_not_get(works: Works) -> None:
    works.write("sd.ckpt", _EVIL)
    images = works.images(_LAYERS, _RECIPE)
    allowed = tuple(replace(i, name="open", recipe=i.recipe.model_copy(update={"pickle": "allow"})) for i in images)
    both = (*allowed, *images)
    builder = works.builder(both, works.lock(both))
    # One after the other: the second finds receipts, in the store and in the lock.
    built = builder.run(allowed)
    assert not built.failed
    lock = builder.record(built.images)
    again = works.builder(both, lock).run(both)
    assert [image.composed.name for image in again.images] == ["open"]
    _only(again)


def test_receipt_of_this_machine_alone_vouches_for_nothing(works: Works) -> None:
    works.write("sd.ckpt", _EVIL)
    _build(works, _LAYERS, _RECIPE + "pickle: allow\n")
    _only(_build(works, _LAYERS, _RECIPE)[0])


def test_receipt_of_the_lock_is_believed_and_nothing_is_read(
    works: Works, new_works: Callable[[str], Works], hub: Hub
) -> None:
    hub.add("acme/sd", lfs={"sd.ckpt": _GOOD})
    layers = _LAYERS.replace("file:sd.ckpt", "hf://acme/sd@main/sd.ckpt")
    works.environ["HF_ENDPOINT"] = hub.endpoint
    _, lock = _build(works, layers, _RECIPE)
    fresh = new_works("fresh")
    fresh.environ["HF_ENDPOINT"] = hub.endpoint
    asked = len(hub.requests)
    assert not _build(fresh, layers, _RECIPE, lock)[0].failed
    assert len(hub.requests) == asked
    # Nor where only the verdict is the lock's, and the receipt the store's.
    for store in (fresh, works):
        assert not _build(store, layers, _RECIPE, replace(lock, receipts={}))[0].failed


def test_new_scanner_looks_again_when_the_file_is_packed(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    works.write("sd.ckpt", _GOOD)
    monkeypatch.setattr("layerbuild.execute.screening.scanner", lambda: "an older one")
    _, lock = _build(works, _LAYERS, _RECIPE)
    assert lock.files[sha256(_GOOD)].pickle == "an older one"
    monkeypatch.undo()
    images = works.images(_LAYERS, _RECIPE)
    builder = works.builder(images, lock)
    (layer,) = [layer for layer in builder.compose(images)[0].layers if layer.kind == "weights"]
    builder.packer.make(layer)
    facts = works.store.facts(sha256(_GOOD))
    assert facts is not None and facts.pickle == scanner()
    # Who made it with another one contradicts nothing.
    told = replace(lock, files={k: replace(f, pickle="somebody") for k, f in lock.files.items()})
    assert works.lock(images, told).files[sha256(_GOOD)].pickle == "somebody"


@pytest.mark.parametrize(
    ("layers", "files"),
    [
        ("sd: {kind: model, type: checkpoint, source: file:x, filename: a.ckpt}\n", {"x": _EVIL}),
        ("sd: {kind: model, type: upscaler, source: file:x.pth}\n", {"x.pth": torch_legacy(calling("os", "system"))}),
        ("sd: {kind: model, type: embedding, source: file:x.bin}\n", {"x.bin": calling("os", "system")}),
        (
            "sd: {kind: model, type: lora, source: file:x.pt, sidecars: {.pkl: file:y}}\n",
            {"x.pt": _GOOD, "y": calling("os", "system")},
        ),
        ("sd: {kind: files, files: {/opt/a.pt: file:y}}\n", {"y": calling("os", "system")}),
        (
            f"sd: {{kind: huggingface, source: file:s, repository: a/b, revision: {'a' * 40}}}\n",
            {"s/training_args.bin": calling("transformers.training_args", "TrainingArguments"), "s/a.json": b"{}"},
        ),
    ],
    ids=["named by the image", "legacy", "bin", "sidecar", "files", "snapshot"],
)
def test_wherever_it_is(works: Works, layers: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        works.write(name, data)
    _only(_build(works, layers, _RECIPE)[0])


def test_bin_may_be_anything_else(works: Works) -> None:
    works.write("x.bin", b"\xff" * 1000)
    assert not _build(works, "sd: {kind: files, files: {/opt/x.bin: file:x.bin}}\n", _RECIPE)[0].failed
    works.write("x.pt", b"\xff" * 1001)
    _only(_build(works, "sd: {kind: files, files: {/opt/x.bin: file:x.pt}}\n", _RECIPE)[0])


def test_nothing_stays_where_nothing_is_kept(works: Works, hub: Hub) -> None:
    hub.add("acme/sd", lfs={"sd.ckpt": _GOOD})
    works.environ["HF_ENDPOINT"] = hub.endpoint
    images = works.images(_LAYERS.replace("file:sd.ckpt", "hf://acme/sd@main/sd.ckpt"), _RECIPE)
    builder = works.builder(images, works.lock(images))
    builder.contents.keep = False
    assert not builder.run(images).failed
    assert list((works.store.root / "files" / sha256(_GOOD)[:2]).iterdir()) == []
    assert hub.sent[f"/lfs/{sha256(_GOOD)}"] == len(_GOOD)


def test_check_looks_again(works: Works) -> None:
    """What a lock says of a file is a claim to a machine that checks it."""
    from layerbuild.execute.rebuild import Rebuilder

    works.write("sd.ckpt", _EVIL)
    images = works.images(_LAYERS, _RECIPE + "pickle: allow\n")
    builder = works.builder(images, works.lock(images))
    lock = builder.record(builder.run(images).images)
    forged = replace(lock, files={k: replace(f, pickle=scanner()) for k, f in lock.files.items()})
    images = works.images(_LAYERS, _RECIPE)
    assert not works.builder(images, forged).run(images).failed
    checker = works.builder(images, forged)
    layers = [layer for image in checker.learnt(images) for layer in image.layers if layer.instance]
    found = Rebuilder(packer=checker.packer, lock=forged).run(layers)
    assert any("os.system" in problem for layer in found for problem in layer.problems)


def test_policy_that_changes_is_asked_again(works: Works) -> None:
    works.write("sd.ckpt", _EVIL)
    _, lock = _build(works, _LAYERS, _RECIPE + "pickle: allow\n")
    assert lock.receipts
    _only(_build(works, _LAYERS, _RECIPE, lock)[0])


def test_verdicts_of_every_kind_of_layer_are_recorded(works: Works) -> None:
    works.write("x.pt", _GOOD)
    _, lock = _build(works, "sd: {kind: files, files: {/opt/x.pt: file:x.pt}}\n", _RECIPE)
    assert lock.files[sha256(_GOOD)].pickle == scanner()


def test_what_may_be_anything_is_looked_at_again_by_another_name(works: Works) -> None:
    data = b"\xff" * 1000
    works.write("x.bin", data)
    built, lock = _build(works, "sd: {kind: files, files: {/opt/x.bin: file:x.bin}}\n", _RECIPE)
    assert not built.failed and lock.files[sha256(data)].pickle != scanner()
    works.write("x.joblib", data)
    layers = "sd: {kind: files, files: {/opt/x.joblib: file:x.joblib}}\n"
    images = works.images(layers, _RECIPE)
    # The verdict in the lock and in the store are of the same bytes.
    again = replace(works.lock(images), files=lock.files)
    _only(works.builder(images, again).run(images))

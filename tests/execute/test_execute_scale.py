"""Many images cost what differs between them. Counted in calls, which no machine changes: no time is measured.

A matrix of images that share most of their models is expanded, compared with its lock, composed, planned
and put together, from a lock that knows everything and with models that are gone.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import layerbuild
from execute.conftest import Works
from fixtures.project import safetensors
from layerbuild import images, kinds, layering
from layerbuild.execute.planning import Planner
from layerbuild.images import ImageDeclaration, expand
from layerbuild.kinds import hashcache, links, requests, weights
from layerbuild.locked import checked, drift
from layerbuild.lockmodel import Lock
from layerbuild.project import load
from layerbuild.store import Store

SHARED = 6
DISTINCT = 3
"""Layers that each image has for itself: a checkpoint, links, and the hash cache."""


def declared(works: Works, count: int) -> tuple[ImageDeclaration, ...]:
    """`count` images of a project with files for all of them."""
    shared = [f"lora-{number}" for number in range(SHARED)]
    own = [f"own-{number:02}" for number in range(count)]
    layers = ""
    for number, name in enumerate([*shared, *own]):
        layers += f"{name}: {{kind: model, type: {'lora' if name in shared else 'checkpoint'}, "
        layers += f"source: 'file:models/{name}.safetensors'}}\n"
        works.write(f"models/{name}.safetensors", safetensors(100, {"name": name}, seed=number))
    recipe = f"matrix: {{model: [{', '.join(own)}]}}\nname: 'i-{{{{ model }}}}'\nwebui: {{root: /webui}}\n"
    recipe += f"layers: ['{{{{ model }}}}', {', '.join(shared)}]\nconfig: {{labels: {{m: '{{{{ model }}}}'}}}}\n"
    return works.images(layers, recipe)


def known(works: Works, count: int) -> Lock:
    """A lock with every receipt; the files are gone."""
    found = declared(works, count)
    builder = works.builder(found, works.lock(found))
    lock = builder.record(builder.run(found).all())
    shutil.rmtree(works.root / "models")
    return lock


def calls(run: Callable[[], Any]) -> Counter[Any]:
    """How often each function runs in this thread, by its code or, if it is written in C, by itself."""
    found: Counter[Any] = Counter()

    def count(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            found[frame.f_code] += 1
        elif event == "c_call":
            found[getattr(argument, "__qualname__", "?")] += 1

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


@pytest.fixture
def new_store(new_works: Callable[[str], Works]) -> Works:
    """The same project on a machine with an empty store."""
    return new_works("empty")


def plan(works: Works, lock: Lock) -> Any:
    """All that `layerbuild plan` does, the lock read."""
    found = expand(load(works.root))
    assert drift(found, lock) == []
    planner = Planner(builder=works.builder(found, lock), store=works.store, open_base=lambda _: pytest.fail("no base"))
    return planner.run(checked(found, found, lock), None)


def test_a_declaration_is_worked_on_once_for_all_images(works: Works, new_store: Works) -> None:
    lock = known(works, 10)
    made = calls(lambda: checked(found := expand(load(works.root)), found, lock))
    for function in (
        images._Expander._render_layer,
        requests.declaration_digest,
        layering._Maker.make,
        weights.group,
        hashcache.remembered,
        links.link,
    ):
        assert made[function.__code__] == SHARED + 10, function
    for function in (hashcache.hash_cache, links.links):
        assert made[function.__code__] == 10, function
    # What is in a layer is of no interest for what an image is made of.
    assert made[kinds.describe.__code__] == 0


def test_work_grows_with_the_number_of_images(works: Works, new_works: Callable[[str], Works]) -> None:
    counts = {}
    for number in (5, 10, 20, 40):
        lock = known(works, number)
        empty = new_works(f"empty-{number}")
        counts[number] = calls(lambda lock=lock, empty=empty: plan(empty, lock)).total()  # type: ignore[misc]
    # Ten images more cost twice of what five images more do, twenty four times.
    steps = {number: (counts[2 * number] - counts[number]) / number for number in (5, 10, 20)}
    assert max(steps.values()) < 1.02 * min(steps.values()), (counts, steps)


def test_a_layer_is_looked_up_once_however_many_images_have_it(
    works: Works, new_store: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = known(works, 10)
    asked: Counter[str] = Counter()
    receipt = Store.receipt
    monkeypatch.setattr(Store, "receipt", lambda self, key: asked.update([key]) or receipt(self, key))
    bill = plan(new_store, lock)
    assert len(bill.layers) == SHARED + 10 * DISTINCT == len(asked) and set(asked.values()) == {1}
    assert sorted(len(layer.images) for layer in bill.layers) == [1] * 30 + [10] * SHARED
    assert all(layer.known for layer in bill.layers)
    found = expand(load(works.root))
    new_store.builder(found, lock).run(found).all()
    assert set(asked.values()) == {2}


def test_images_are_put_together_without_their_models(works: Works, new_store: Works) -> None:
    lock = known(works, 5)
    found = expand(load(works.root))
    builder = new_store.builder(found, lock)
    built = builder.run(found).all()
    assert {image.composed.name: image.digest for image in built} == {
        name: image.manifest for name, image in lock.images.items()
    }
    assert builder.record(built) == lock
    assert list((new_store.store.root / "files").rglob("*.*")) == []


def test_images_share_what_they_have_in_common(works: Works) -> None:
    lock = known(works, 3)
    one, other, _ = checked(found := expand(load(works.root)), found, lock)
    assert {id(layer) for layer in one.layers} & {id(layer) for layer in other.layers} == {
        id(layer) for layer in one.layers if layer.label.startswith("lora")
    }
    assert {id(model) for model in one.models[1:]} == {id(model) for model in other.models[1:]}
    for kind in (links.KIND, hashcache.KIND):
        mine, others = (
            {id(p) for layer in i.layers if layer.kind == kind and layer.instance for p in layer.instance.parts}
            for i in (one, other)
        )
        assert len(mine & others) >= SHARED, kind
    # A matrix of a thousand values in each of its thousand images would be a million.
    assert one.declaration.recipe.matrix == {}


def test_a_lock_that_did_not_change_is_parsed_once(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    known(works, 2)
    monkeypatch.setenv("LAYERBUILD_STORE", str(works.store.root))
    workspace = layerbuild.load(works.root).workspace
    path = works.root / "lockfile.yaml"
    path.write_text("version: 1\n")
    first = workspace.lock()
    assert workspace.lock() is first
    path.write_text("version: 1\nunlocked: {a: b}\n")
    assert workspace.lock() is not first and workspace.lock().unlocked == {"a": "b"}
    path.unlink()
    assert workspace.lock_or_none() is None

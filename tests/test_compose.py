"""Declarations and a lock become layers: which, in which order, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builders import images_of
from layerbuild.compose import MAX_LAYERS, ComposedImage, compose, parents_in_base
from layerbuild.errors import ProjectError
from layerbuild.kinds import weights
from layerbuild.lockmodel import LockedBase
from layerbuild.model import LARGE, Directory
from locks import BASE, made_up, sha_of, with_images


def _model(name: str, *, type: str = "checkpoint", more: str = "", source: str = "") -> str:
    return f"{name}: {{kind: model, type: {type}, source: 'file:{source or name}.safetensors'{more}}}\n"


def _titles(image: ComposedImage) -> list[str]:
    return [layer.title for layer in image.layers]


def _one(root: Path, layers: str, recipe: str, **lock: Mapping[str, int]) -> ComposedImage:
    images = images_of(root, {"layers/l.yaml": layers, "recipes/r.yaml": recipe})
    return compose(images, made_up(images, **lock))[0]


_ALL = (
    _model("sd")
    + _model("ink", type="lora")
    + "start: {kind: files, files: {/opt/x: {content: hi}}}\n"
    + "clip: {kind: huggingface, source: 'hf://acme/clip@main'}\n"
    + "webui: {kind: webui, source: 'git+file:webui@main', version: 1.10.1, repositories: {B: 'git+file:b@main'}}\n"
)
_RECIPE = "name: one\nwebui: {root: /webui}\nlayers: [start, sd, clip, ink, webui]\n"
_SOFTWARE = ["git-tree webui", "git-tree webui/B", "huggingface clip"]
_WEIGHTS = ["weights sd", "weights clip", "weights ink"]
_LAST = ["links one", "hash-cache one", "files start"]


@pytest.mark.parametrize(
    ("stacking", "expected"),
    [("software-first", [*_SOFTWARE, *_WEIGHTS, *_LAST]), ("weights-first", [*_WEIGHTS, *_SOFTWARE, *_LAST])],
)
def test_order(tmp_path: Path, stacking: str, expected: list[str]) -> None:
    image = _one(tmp_path, _ALL, f"{_RECIPE}stacking: {stacking}\n")
    assert _titles(image) == expected
    algorithms = {layer.title: layer.algorithm for layer in image.layers}
    assert {a for t, a in algorithms.items() if t in _WEIGHTS} == {"none"}
    assert {a for t, a in algorithms.items() if t not in _WEIGHTS} == {"zstd"}


def test_layers_common_to_a_matrix_come_first(tmp_path: Path) -> None:
    recipe = "matrix: {m: [a, b]}\nname: 'i-{{ m }}'\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\n"
    files = {"layers/l.yaml": _model("a") + _model("b") + _model("both"), "recipes/r.yaml": recipe}
    files["recipes/r.yaml"] += "layers: ['{{ m }}', both]\n"
    images = images_of(tmp_path, files)
    for image in compose(images, made_up(images)):
        assert _titles(image)[:2] == ["weights both", f"weights {image.name[2:]}"]


def test_weights_keep_the_locks_order_and_new_ones_come_last(tmp_path: Path) -> None:
    files = {"layers/l.yaml": "".join(_model(n) for n in "abcd")}
    recipe = "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: "
    images = images_of(tmp_path, {**files, "recipes/r.yaml": recipe + "[b, c]\n"})
    lock = with_images(made_up(images), compose(images, made_up(images)))
    more = images_of(tmp_path, {**files, "recipes/r.yaml": recipe + "[a, c, b, d]\n"})
    now = replace(made_up(more), images=lock.images)
    assert _titles(compose(more, now)[0])[:4] == ["weights b", "weights c", "weights a", "weights d"]


def test_equal_contents_are_one_layer(tmp_path: Path) -> None:
    layers = _model("a", source="same") + _model("b", source="same", more=", filename: b.safetensors")
    layers = layers.replace("b: {", "b: {", 1)
    image = _one(tmp_path, layers, "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: [a, b]\n")
    assert Counter(layer.kind for layer in image.layers) == {"weights": 1, "links": 1, "hash-cache": 1}
    links = next(layer.instance for layer in image.layers if layer.kind == "links")
    assert links is not None
    assert links.inputs.count(sha_of("file:same.safetensors")) == 2


def test_layer_of_its_own_from_16_mib_on(tmp_path: Path) -> None:
    sidecars = ", sidecars: {.yaml: file:sd.yaml, .json: file:sd.json}"
    recipe = "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: [sd]\n"
    for size, expected in ((LARGE, 3), (LARGE - 1, 1)):
        image = _one(tmp_path, _model("sd", more=sidecars), recipe, sizes={"sd": size})
        held = [weights.files(layer.instance) for layer in image.layers if layer.kind == "weights" and layer.instance]
        assert len(held) == expected and sum(map(len, held)) == 3


def test_hugging_face_weights_are_those_of_a_model(tmp_path: Path) -> None:
    image = _one(tmp_path, _ALL, _RECIPE, sizes={"clip": LARGE - 1})
    assert "weights clip" not in _titles(image)


def test_links_file_puts_the_model_itself_at_its_path(tmp_path: Path) -> None:
    layers = _model("sd", more=", links: file, sidecars: {.yaml: file:sd.yaml}") + _model("other")
    recipe = "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: [sd, other]\n"
    image = _one(tmp_path, layers, recipe)
    assert _titles(image) == ["files sd", "files sd", "weights other", "links one", "hash-cache one"]
    assert {layer.algorithm for layer in image.layers if layer.label == "sd"} == {"none"}
    links = next(layer.instance for layer in image.layers if layer.kind == "links")
    assert links is not None
    assert "sd.safetensors" not in links.inputs and "other.safetensors" in links.inputs


@pytest.mark.parametrize("links", ["symlink", "file"])
def test_sidecars_of_two_models_at_one_path(tmp_path: Path, links: str) -> None:
    layers = (
        "a: {kind: model, type: checkpoint, source: file:m.ckpt, sidecars: {.yaml: file:one.yaml}, "
        f"links: {links}}}\n"
        "b: {kind: model, type: checkpoint, source: file:m.safetensors, sidecars: {.yaml: file:two.yaml}}\n"
    )
    recipe = "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: [a, b]\n"
    with pytest.raises(ProjectError, match=r"another model already puts a file at /w/models/.*/m\.yaml"):
        _one(tmp_path, layers, recipe)
    equal = _one(tmp_path, layers.replace("two.yaml", "one.yaml"), recipe)
    assert len(equal.models) == 2


def test_models_that_the_webui_would_confuse(tmp_path: Path) -> None:
    layers = _model("a", type="lora", more=", filename: x/ink.safetensors")
    layers += _model("b", type="lora", more=", filename: y/ink.safetensors")
    recipe = "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: [a, b]\n"
    with pytest.raises(ProjectError, match="a and b are both 'lora/ink' to the webui, in image one") as caught:
        _one(tmp_path, layers, recipe)
    assert caught.value.problems[0].file == "recipes/r.yaml"


def test_several_vaes_have_no_entry(tmp_path: Path) -> None:
    recipe = "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: "
    layers = _model("a", type="vae") + _model("b", type="vae")
    assert "hash-cache one" in _titles(_one(tmp_path / "1", layers, recipe + "[a]\n"))
    assert "hash-cache one" not in _titles(_one(tmp_path / "2", layers, recipe + "[a, b]\n"))


def test_pending_facts_hold_the_hash_cache_back(tmp_path: Path) -> None:
    images = images_of(tmp_path, {"layers/l.yaml": _ALL, "recipes/r.yaml": _RECIPE})
    (image,) = compose(images, made_up(images, facts=False))
    assert dict(image.pending) == {
        sha_of("file:sd.safetensors"): {"header"},
        sha_of("file:ink.safetensors"): {"header", "addnet"},
    }
    assert [layer.line for layer in image.layers if layer.instance is None] == ["hash-cache/one@pending"]
    (known,) = compose(images, made_up(images))
    assert _titles(known) == _titles(image) and not known.pending


@pytest.mark.parametrize(("count", "bits"), [(64, None), (65, 4), (100, 4), (200, 4)])
def test_no_model_is_lost_among_many(tmp_path: Path, count: int, bits: int | None) -> None:
    names = [f"m{number:03d}" for number in range(count)]
    recipe = f"name: one\nwebui: {{root: /w, provided_by: base}}\nbase: x.io/b:1\nlayers: [{', '.join(names)}]\n"
    sizes = {name: LARGE + number for number, name in enumerate(names)}
    images = images_of(tmp_path, {"layers/l.yaml": "".join(map(_model, names)), "recipes/r.yaml": recipe})
    lock = made_up(images, sizes)
    (image,) = compose(images, lock)
    layers = [layer.instance for layer in image.layers if layer.kind == "weights" and layer.instance]
    held = Counter(sha for layer in layers for sha in weights.files(layer))
    assert held == Counter(sha_of(f"file:{name}.safetensors") for name in names)
    assert len(layers) <= 64
    assert (image.buckets.bits if image.buckets else None) == bits
    # What the lock says is kept, and gives the same again.
    (again,) = compose(images, with_images(lock, (image,)))
    assert (again.buckets, _titles(again)) == (image.buckets, _titles(image))


def test_new_model_among_many_changes_one_layer_of_weights(tmp_path: Path) -> None:
    names = [f"m{number:03d}" for number in range(90)]
    files = {"layers/l.yaml": "".join(map(_model, [*names, "new"]))}
    recipe = "name: one\nwebui: {root: /w, provided_by: base}\nbase: x.io/b:1\nlayers: "
    images = images_of(tmp_path, {**files, "recipes/r.yaml": f"{recipe}[{', '.join(names)}]\n"})
    before = compose(images, made_up(images))
    more = images_of(tmp_path, {**files, "recipes/r.yaml": f"{recipe}[{', '.join([*names, 'new'])}]\n"})
    lock = replace(made_up(more), images=with_images(made_up(images), before).images)
    old, new = ({x.line for x in i.layers if x.kind == "weights"} for i in (before[0], compose(more, lock)[0]))
    assert len(new - old) == 1 and len(old - new) <= 1


def test_too_many_layers(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(MAX_LAYERS + 1)]
    layers = "".join(f"{name}: {{kind: files, files: {{/opt/{name}: {{content: x}}}}}}\n" for name in names)
    recipe = f"name: one\nlayers: [{', '.join(names[:-1])}]\n"
    assert len(_one(tmp_path, layers, recipe).layers) == MAX_LAYERS
    with pytest.raises(ProjectError, match=rf"image one has {MAX_LAYERS + 1} layers"):
        _one(tmp_path, layers, f"name: one\nlayers: [{', '.join(names)}]\n")


def test_parents_that_the_base_may_own(tmp_path: Path) -> None:
    layers = "a: {kind: files, files: {/etc/app/conf.d/x: {content: x}, /opt/y/z: {content: y}}}\n" + _model("sd")
    recipe = "name: one\nwebui: {root: /srv/webui, provided_by: base}\nbase: x.io/b:1\nlayers: [a, sd]\n"
    image = _one(tmp_path / "1", layers, recipe)
    webui = ["srv", "srv/webui", "srv/webui/models", "srv/webui/models/Stable-diffusion"]
    assert parents_in_base(image) == ["etc", "etc/app", "etc/app/conf.d", *webui]
    ours = recipe.replace(", provided_by: base", "").replace("[a, sd]", "[a, sd, webui]")
    owned = _one(tmp_path / "2", layers + _ALL.splitlines()[-1], ours)
    assert parents_in_base(owned) == ["etc", "etc/app", "etc/app/conf.d", "srv"]
    blind = recipe.replace("provided_by: base", "provided_by: base, inspect: false")
    assert parents_in_base(_one(tmp_path / "3", layers, blind)) == []
    scratch = "name: one\nlayers: [a]\n"
    assert parents_in_base(_one(tmp_path / "4", layers, scratch)) == []


def test_pending_hash_cache_counts_among_the_parents(tmp_path: Path) -> None:
    recipe = "name: one\nwebui: {root: /w, data_dir: /data/here, models_dir: /m, provided_by: base}\nbase: x.io/b:1\n"
    images = images_of(tmp_path, {"layers/l.yaml": _model("sd"), "recipes/r.yaml": recipe + "layers: [sd]\n"})
    pending, known = (compose(images, made_up(images, facts=facts))[0] for facts in (False, True))
    assert parents_in_base(pending) == parents_in_base(known)
    assert "data/here" in parents_in_base(pending)


def test_directories_of_the_base_are_repeated(tmp_path: Path) -> None:
    layers = "a: {kind: files, files: {/etc/app/x: {content: x}}}\n"
    recipe = "name: one\nbase: x.io/b:1\nlayers: [a]\n"
    images = images_of(tmp_path, {"layers/l.yaml": layers, "recipes/r.yaml": recipe})
    lock = made_up(images)
    found = {"etc": Directory(path="etc", mode=0o700, uid=5, gid=6), "etc/app": None}
    base = LockedBase(reference="x.io/b:1", digest=BASE, directories=found)
    told = replace(lock, images={"one": replace(lock.images["one"], base=base)})
    (before,), (after,) = compose(images, lock), compose(images, told)
    one, other = before.layers[0].instance, after.layers[0].instance
    assert one is not None and other is not None and one.key != other.key
    assert '{"gid":6,"mode":448,"path":"etc","uid":5}' in other.inputs

"""What recipes mean: images, their layers, their targets, and what does not fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import COMMIT, SHA, images_of, problems_of
from layerbuild import project
from layerbuild.images import ImageDeclaration
from layerbuild.kinds.requests import requests
from layerbuild.schema import FilesLayer, FileSpec, ModelLayer, Recipe
from layerbuild.targets import builtins_of, target_of

LAYERS = f"""\
sd15: {{kind: model, type: checkpoint, source: 'hf://a/b@main/sd15.safetensors', sha256: {SHA["a"]}}}
deliberate: {{kind: model, type: checkpoint, source: 'hf://a/b@main/d.safetensors'}}
any: {{kind: model, type: '{{{{ t }}}}', source: 'hf://a/b@{{{{ rev }}}}/{{{{ checkpoint }}}}', filename: '{{{{n}}}}'}}
clip: {{kind: huggingface, source: 'hf://openai/clip@main'}}
webui: {{kind: webui, source: 'git+https://h/r@{COMMIT}'}}
webui-dev: {{kind: webui, source: 'git+https://h/r@dev'}}
webui-fork: {{kind: webui, source: 'git+https://h/r@{"0" * 40}', version: '1.6.1'}}
"""
BASE = "base: docker.io/a/b:1\nwebui: {provided_by: base}\n"


@pytest.fixture(autouse=True)
def _no_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "catalog_directory", lambda: tmp_path / "no-catalog")


def expanded(root: Path, recipe: str, **files: str) -> tuple[ImageDeclaration, ...]:
    return images_of(root, {"layers/l.yaml": LAYERS, "recipes/r.yaml": recipe, **files})


def faults(root: Path, recipe: str, layers: str = "") -> list[str]:
    return [str(p) for p in problems_of(root, {"layers/l.yaml": LAYERS + layers, "recipes/r.yaml": recipe})]


def fault(root: Path, recipe: str, layers: str = "") -> str:
    [text] = faults(root, recipe, layers)
    return text


# --- names and matrix ------------------------------------------------------------------------------


def test_a_matrix_multiplies_in_its_order(tmp_path: Path) -> None:
    recipe = "matrix: {a: [x, y], b: [1, 2.5, true]}\nvars: {v: w}\nname: 'i-{{ v }}-{{ a }}-{{ b|lower }}'\n"
    recipe += "tags: ['{{ a }}']\n"
    images = expanded(tmp_path, recipe)
    assert [i.name for i in images] == ["i-w-x-1", "i-w-x-2.5", "i-w-x-true", "i-w-y-1", "i-w-y-2.5", "i-w-y-true"]
    assert images[-1].recipe.tags == ["y"]


def test_the_default_name_is_the_files(tmp_path: Path) -> None:
    assert [i.name for i in expanded(tmp_path, "base: scratch\n")] == ["r"]


def test_twins(tmp_path: Path) -> None:
    text = fault(tmp_path / "a", "matrix: {a: [x, y]}\nname: i\n")
    assert text.startswith("recipes/r.yaml:2: name: two images are called 'i'\n")
    assert "use every variable of the matrix" in text
    problems = problems_of(tmp_path / "b", {"recipes/q.yaml": "name: i\n", "recipes/r.yaml": "name: i\n"})
    assert [p.message for p in problems] == ["two images are called 'i' (the other is in recipes/q.yaml)"]


@pytest.mark.parametrize("name", ["A", "a b", "a/", "/a", "a//b", "-a", "a..b", "a___b", "a:b", "ä"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    assert fault(tmp_path, f"name: '{name}'\n").startswith(f"recipes/r.yaml:1: name: {name!r} is no image name")


@pytest.mark.parametrize("name", ["a", "a/b-c/d.e", "a__b", "a--b", "1"])
def test_names_that_are_fine(tmp_path: Path, name: str) -> None:
    assert [i.name for i in expanded(tmp_path, f"name: '{name}'\n")] == [name]


def test_tags(tmp_path: Path) -> None:
    text = fault(tmp_path / "a", "tags:\n- ok\n- not ok\n")
    assert text.startswith("recipes/r.yaml:3: tags.1: 'not ok' is no tag")
    assert fault(tmp_path / "b", f"tags: [{'x' * 129}]\n")
    assert expanded(tmp_path / "c", "tags: [1.10.1, latest, _x, A-b]\n")[0].recipe.tags == [
        "1.10.1",
        "latest",
        "_x",
        "A-b",
    ]


def test_repositories(tmp_path: Path) -> None:
    recipe = "matrix: {a: [x, y]}\nname: 'i-{{ a }}'\ntags: ['{{ a }}']\n"
    assert [i.repository for i in expanded(tmp_path / "a", recipe)] == ["i-x", "i-y"]
    shared = expanded(tmp_path / "b", recipe + "repository: all/{{ image.name[0] }}\n")
    assert [(i.name, i.repository) for i in shared] == [("i-x", "all/i"), ("i-y", "all/i")]
    # It moves no byte of the image.
    assert [i.settings for i in shared] == [i.settings for i in expanded(tmp_path / "c", recipe)]
    assert fault(tmp_path / "d", "repository: A\n").startswith(
        "recipes/r.yaml:1: repository: 'A' is no repository name"
    )
    assert "no repository name" in fault(tmp_path / "e", "repository: ''\n")


def test_two_images_under_one_tag(tmp_path: Path) -> None:
    recipe = "matrix: {a: [x, y]}\nname: 'i-{{ a }}'\nrepository: all\n"
    text = fault(tmp_path / "a", recipe + "tags:\n- '{{ a }}'\n- newest\n")
    assert text.startswith("recipes/r.yaml:6: tags.1: images i-x and i-y would both be all:newest\n")
    assert "leave 'tags' out" in text
    # Without tags each has its own digest for one.
    assert len(expanded(tmp_path / "b", recipe)) == 2
    assert len(expanded(tmp_path / "c", recipe + "tags: ['{{ a }}', '{{ a }}']\n")) == 2


def test_a_tag_in_the_repository_that_is_another_images_name(tmp_path: Path) -> None:
    files = {"recipes/all.yaml": "tags: [a]\n", "recipes/one.yaml": "repository: all\ntags: [a]\n"}
    assert [p.message for p in problems_of(tmp_path, files)] == ["images all and one would both be all:a"]


# --- layers ----------------------------------------------------------------------------------------


def test_layers_by_name_and_variable(tmp_path: Path) -> None:
    recipe = (
        BASE
        + "matrix: {c: [sd15, deliberate]}\nname: 'i-{{ c }}'\nlayers: [clip, '{{ c }}', \"{{ 'x' if c == 'z' }}\"]\n"
    )
    images = expanded(tmp_path, recipe)
    assert [[use.name for use in image.uses] for image in images] == [["clip", "sd15"], ["clip", "deliberate"]]
    assert images[0].uses[0] == images[1].uses[0]
    assert images[0].uses[0].document.file == "layers/l.yaml"


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    text = fault(tmp_path / "a", BASE + "layers:\n- clip\n- sd-15\n")
    assert text == (
        "recipes/r.yaml:5: layers.1: no layer is called 'sd-15'\n"
        "    try: define it in layers/*.yaml; did you mean 'sd15'?"
    )
    text = fault(tmp_path / "b", BASE + "layers: [clip, clip]\n")
    assert "layers.1: the layer 'clip' is listed twice" in text


def test_undefined_variables_in_recipes_and_layers(tmp_path: Path) -> None:
    found = faults(tmp_path / "a", "vars: {t: x}\nname: '{{ nmae }}'\nlayers: ['{{ cechkpoint }}']\n")
    assert [text.partition("\n")[0] for text in found] == [
        "recipes/r.yaml:2: name: 'nmae' is undefined",
        "recipes/r.yaml:3: layers.0: 'cechkpoint' is undefined",
    ]
    found = faults(tmp_path / "b", BASE + "vars: {checkpoint: x, n: y}\nlayers: [any]\n")
    assert [text.partition("\n")[0] for text in found] == [
        "layers/l.yaml:3: any.type: 't' is undefined",
        "layers/l.yaml:3: any.source: 'rev' is undefined",
    ]
    assert "defined here: architecture, checkpoint, hf_home, image, n, os, platform, webui" in found[0]


def test_what_is_wrong_after_rendering_has_its_line(tmp_path: Path) -> None:
    recipe = BASE + "vars: {t: lorra, rev: main, checkpoint: c, n: a.pt}\nlayers: [any]\n"
    assert fault(tmp_path, recipe).startswith("layers/l.yaml:3: any.type: input should be 'checkpoint', ")


def test_one_mistake_in_a_shared_layer_is_reported_once(tmp_path: Path) -> None:
    recipe = (
        BASE + "matrix: {i: [1, 2, 3]}\nname: 'i{{ i }}'\nlayers: [any]\nvars: {t: lora, rev: main, checkpoint: c}\n"
    )
    assert [text.partition("\n")[0] for text in faults(tmp_path, recipe)] == [
        "layers/l.yaml:3: any.filename: 'n' is undefined"
    ]


@pytest.mark.parametrize(
    ("fields", "key"),
    [("filename: .hidden.pt", "filename"), ("filename: a/.b/c.pt", "filename"), ("directory: .x", "directory")],
)
def test_names_that_the_webui_never_lists(tmp_path: Path, fields: str, key: str) -> None:
    text = fault(tmp_path, BASE + "layers: [h]\n", f"h:\n  kind: model\n  type: lora\n  source: x\n  {fields}\n")
    assert text.startswith(f"layers/l.yaml:12: h.{key}: the webui lists nothing below ")


def test_a_rendered_path_is_checked_as_well(tmp_path: Path) -> None:
    recipe = BASE + "vars: {t: lora, rev: main, checkpoint: c, n: ../../x.pt}\nlayers: [any]\n"
    assert "any.filename: '../../x.pt' cannot be a path in an image: it has a '..' component" in fault(tmp_path, recipe)


# --- pin keys --------------------------------------------------------------------------------------


def keys(root: Path, layers: str, variables: str, **more: Any) -> list[str]:
    webui = "" if "kind: webui" in layers else BASE
    recipe = f"{webui}{variables}\nname: 'i-{{{{ image_number }}}}'\nlayers: [x]\n"
    images = images_of(root, {"layers/x.yaml": layers, "recipes/r.yaml": recipe, **more})
    return [image.uses[0].pin_key for image in images]


MATRIX = "matrix: {image_number: [1, 2], rev: [main]}"


def test_a_pin_key_names_the_variables_that_sources_depend_on(tmp_path: Path) -> None:
    per_rev = ["x[rev=main]"] * 2
    per_image = ["x[image_number=1]", "x[image_number=2]"]
    sources = {
        "a": ("{kind: model, type: lora, source: 'hf://a/b@{{ rev }}/x'}", per_rev),
        "b": (
            "{kind: model, type: lora, source: s, filename: '{{ image_number }}.pt', homepage: '{{ rev }}'}",
            ["x", "x"],
        ),
        "c": ("{kind: model, type: lora, source: s, sidecars: {.yaml: 'x{{ image_number }}'}}", per_image),
        "d": ("{kind: files, files: {/a: {content: '{{ rev }}', mode: '0644'}, '/{{ rev }}': {link: x}}}", ["x", "x"]),
        "e": ("{kind: files, files: {'/{{ rev }}': 'https://h/x'}}", per_rev),
        "f": (
            "{kind: huggingface, source: hf://a/b, files: ['{{ rev }}'], absent: ['{{ image_number }}']}",
            ["x[image_number=1,rev=main]", "x[image_number=2,rev=main]"],
        ),
        "g": ("{kind: webui, source: s, repositories: {BLIP: 'git+https://h/r@{{ rev }}'}}", per_rev),
        "h": ("{kind: files, files: {/a: {source: 'https://h/{{ p }}'}}, vars: {p: q}}", ["x", "x"]),
    }
    for name, (layer, expected) in sources.items():
        assert keys(tmp_path / name, f"x: {layer}\n", MATRIX) == expected, name


def test_own_variables_of_layerbuild_are_named_by_attribute(tmp_path: Path) -> None:
    layer = "x: {kind: files, files: {'{{ webui.root }}/a': 'https://h/{{ image.name }}'}}\n"
    made = keys(tmp_path, layer, MATRIX)
    assert made == [f"x[image.name=i-{n},webui.root=/stable-diffusion-webui]" for n in (1, 2)]


def test_values_that_could_be_mistaken_are_quoted(tmp_path: Path) -> None:
    layer = "x: {kind: model, type: lora, source: '{{ a }}{{ b }}'}\n"
    values = [
        ("'1,b=2'", "3"),
        ("1", "'2,b=3'"),
        ("1", "3"),
        ("'1'", "3"),
        ("true", "3"),
        ("'true'", "3"),
        ("1.10.1", "''"),
    ]
    made = []
    for i, (a, b) in enumerate(values):
        made += keys(tmp_path / str(i), layer, f"vars: {{a: {a}, b: {b}, image_number: 1}}")
    assert made == [
        'x[a="1,b=2",b=3]',
        'x[a=1,b="2,b=3"]',
        "x[a=1,b=3]",
        'x[a="1",b=3]',
        "x[a=true,b=3]",
        'x[a="true",b=3]',
        'x[a=1.10.1,b=""]',
    ]


def test_two_roots_give_two_layers(tmp_path: Path) -> None:
    """A path that depends on the image must not come from another image's rendering."""
    layer = "x: {kind: files, files: {'{{ webui.root }}/a': {content: b}}}\n"
    recipe = "matrix: {r: [one, two]}\nname: 'i-{{ r }}'\nwebui: {root: '/{{ r }}', provided_by: base}\n"
    recipe += "base: a/b:1\nlayers: [x]\n"
    images = images_of(tmp_path, {"layers/x.yaml": layer, "recipes/r.yaml": recipe})
    places = [list(use.layer.files) for image in images for use in image.uses if isinstance(use.layer, FilesLayer)]
    assert places == [["/one/a"], ["/two/a"]]


def test_equal_pin_keys_ask_for_the_same(tmp_path: Path) -> None:
    recipe = (
        BASE
        + "matrix: {n: [a.pt, b.pt], rev: [main, dev]}\nvars: {t: lora, checkpoint: c}\n"
        + "name: 'i-{{ n }}-{{ rev }}'\nlayers: [any]\n"
    )
    uses = [image.uses[0] for image in expanded(tmp_path, recipe)]
    asked = {use.pin_key: requests(use.layer) for use in uses}
    assert list(asked) == ["any[checkpoint=c,rev=main]", "any[checkpoint=c,rev=dev]"]
    assert all(requests(use.layer) == asked[use.pin_key] for use in uses)
    assert [use.layer.filename for use in uses if isinstance(use.layer, ModelLayer)] == ["a.pt", "a.pt", "b.pt", "b.pt"]


# --- templates -------------------------------------------------------------------------------------


def test_templates_become_text(tmp_path: Path) -> None:
    layers = (
        "w: {kind: files, files: {/start.sh: {template: w/start.sh.j2, mode: '0755'}}, vars: {port: 1, name: own}}\n"
    )
    files = {
        "layers/w.yaml": layers,
        "layers/w/start.sh.j2": "{% include 'w/part.j2' %}{{ port }} {{ name }} {{ webui.root }} {{ hf_home }}\n",
        "layers/w/part.j2": "# {{ image.platform }}\n",
        "recipes/r.yaml": "vars: {name: recipe}\nlayers: [w]\nwebui: {root: /w/}\n",
    }
    [image] = images_of(tmp_path, files)
    [use] = image.uses
    assert isinstance(use.layer, FilesLayer)
    spec = use.layer.files["/start.sh"]
    assert isinstance(spec, FileSpec)
    assert (spec.template, spec.mode) == (None, "0755")
    assert spec.content == "# linux/amd64\n1 recipe /w /opt/huggingface\n"
    assert use.pin_key == "w"


def test_template_problems_have_the_line_of_the_layer(tmp_path: Path) -> None:
    layers = "w:\n  kind: files\n  files:\n    /a:\n      template: gone.j2\n    /b:\n      template: bad.j2\n"
    files = {"layers/w.yaml": layers, "layers/bad.j2": "{{ nothing }}", "recipes/r.yaml": "layers: [w]\n"}
    assert [str(p).partition("\n")[0] for p in problems_of(tmp_path, files)] == [
        "layers/w.yaml:5: w.files./a.template: no template 'gone.j2' beside the declaration",
        "layers/w.yaml:7: w.files./b.template: template bad.j2: 'nothing' is undefined",
    ]


# --- targets ---------------------------------------------------------------------------------------


def test_the_target_and_its_defaults(tmp_path: Path) -> None:
    [plain] = expanded(tmp_path / "a", "base: scratch\n")
    target = plain.target
    assert (target.root, target.version, target.hf_home) == ("/stable-diffusion-webui", None, "/opt/huggingface")
    recipe = "webui: {root: /w/, data_dir: /d/, version: v1.6.0}\nhf_home: /h/\nowner: {uid: 5, gid: 6}\n"
    [moved] = expanded(tmp_path / "b", recipe)
    target = moved.target
    assert (target.root, target.data_dir, target.models_dir, target.embeddings_dir, target.hf_home) == (
        "/w", "/d", "/d/models", "/d/embeddings", "/h")  # fmt: skip
    assert (target.uid, target.gid, target.version) == (5, 6, (1, 6, 0))


def test_the_release_is_known_from_the_commit(tmp_path: Path) -> None:
    images = [
        expanded(tmp_path / str(i), f"webui: {{root: /w{extra}}}\nlayers: [{layer}]\n")[0].target.version
        for i, (layer, extra) in enumerate(
            [
                ("webui", ""),
                ("webui-dev", ""),
                ("webui-fork", ""),
                ("webui-dev", ", version: 1.9.4"),
                ("webui", ", version: v1.10.1"),
            ]
        )
    ]
    assert images == [(1, 10, 1), None, (1, 6, 1), (1, 9, 4), (1, 10, 1)]


def test_builtins_are_the_names_that_nobody_may_define() -> None:
    recipe = Recipe()
    assert set(builtins_of("x", recipe, target_of(recipe))) == set(project.BUILTINS)


def test_flags_follow_from_the_target(tmp_path: Path) -> None:
    layers = "f: {kind: files, files: {/f: {content: \"{{ webui.flags | join(' ') }} {{ webui.ckpt_dir }}\"}}}\n"
    recipe = (
        "webui: {root: /w, data_dir: /d, ckpt_dir: /c/, ckpt: /m.ckpt, provided_by: base}\nbase: a/b:1\nlayers: [f]"
    )
    [image] = images_of(tmp_path, {"layers/f.yaml": layers, "recipes/r.yaml": recipe})
    [layer] = [use.layer for use in image.uses if isinstance(use.layer, FilesLayer)]
    spec = layer.files["/f"]
    assert isinstance(spec, FileSpec)
    assert spec.content == "--data-dir /d --ckpt-dir /c --ckpt /m.ckpt /c"
    assert (image.target.type_dirs, image.target.checkpoint) == ((("checkpoint", "/c"),), "/m.ckpt")


def test_a_list_is_no_text(tmp_path: Path) -> None:
    layers = "f: {kind: files, files: {/f: {content: '{{ webui.flags }}'}}}\n"
    assert "gives a list" in fault(tmp_path, "webui: {}\nlayers: [f]\n", layers)


def test_the_flavor_is_the_webui_layers(tmp_path: Path) -> None:
    layers = f"forge: {{kind: webui, source: 'git+https://h/r@{COMMIT}', flavor: forge}}\n"
    [image] = expanded(tmp_path / "a", "layers: [forge]\n", **{"layers/m.yaml": layers})
    assert image.target.flavor == "forge"
    [image] = expanded(tmp_path / "b", "webui: {flavor: sdnext, provided_by: base}\nbase: a/b:1\n")
    assert (image.target.flavor, image.target.embeddings_dir) == ("sdnext", "/stable-diffusion-webui/models/embeddings")


def test_where_a_cache_is_kept_changes_the_settings(tmp_path: Path) -> None:
    recipes = ["webui: {}", "webui: {cache_dir: /c}", "webui: {cache_file: /c}", "webui: {cache_dir: /d}"]
    made = [expanded(tmp_path / str(i), recipe)[0].settings for i, recipe in enumerate(recipes)]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "base: a/b:1\nwebui: {provided_by: base}\nlayers: [webui]",
            "webui.provided_by: the base provides the webui, and webui does too",
        ),
        ("webui: {provided_by: layer}\nlayers: [clip]", "webui.provided_by: no layer of this recipe is a webui"),
        ("webui: {provided_by: base}", "webui.provided_by: 'base: scratch' provides no webui"),
        ("layers: [webui, webui-fork]", "layers: two webui layers: webui and webui-fork"),
        (
            "base: a/b:1\nlayers: [sd15]",
            "webui: the recipe holds models (sd15 ...) and does not say where the webui lies",
        ),
        ("webui: {version: newest}", "webui.version: 'newest' is no release"),
        (
            "webui: {version: 1.6.1}\nlayers: [webui]",
            "webui.version: the recipe, the webui layer and its commit name different releases: 1.6.1, 1.10.1",
        ),
    ],
)
def test_contradictions(tmp_path: Path, recipe: str, message: str) -> None:
    text = fault(tmp_path, f"{recipe}\n")
    assert text.startswith("recipes/r.yaml")
    assert message in text
    assert "try: " in text


def test_models_on_a_webui_layer_need_no_word_about_the_webui(tmp_path: Path) -> None:
    [image] = expanded(tmp_path, "base: a/b:1\nlayers: [webui, sd15]\n")
    assert [use.name for use in image.uses] == ["webui", "sd15"]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("", None),
        ("python: '3.10'", "3.10"),
        ("python: '3.10.13'", "3.10.13"),
        ("python: '3.10'\nbytecode: none", None),
        ("layers: [own]", "3.11"),
        ("layers: [own]\nbytecode: unchecked-hash", "3.11"),
        ("layers: [own]\nbytecode: none", None),
        ("layers: [own]\npython: '3.11.7'", "3.11.7"),
        ("layers: [own, other]", None),
    ],
)
def test_bytecode_is_of_the_python_that_somebody_names(tmp_path: Path, recipe: str, expected: str | None) -> None:
    packages = "own: {kind: python, packages: [a], python: '3.11'}\n"
    packages += "other: {kind: python, packages: [a], python: '3.12'}\n"
    [image] = images_of(tmp_path, {"layers/l.yaml": packages, "recipes/r.yaml": f"base: a/b:1\n{recipe}\n"})
    assert image.target.bytecode == expected


def test_bytecode_without_a_python_to_make_it(tmp_path: Path) -> None:
    assert "nobody says which Python" in fault(tmp_path, "base: a/b:1\nbytecode: unchecked-hash\n")


def test_a_template_is_rendered_for_each_image(tmp_path: Path) -> None:
    files = {
        "layers/w.yaml": "w: {kind: files, files: {/a: {template: a.j2}}}\n",
        "layers/a.j2": "{{ v }} {{ image.name }}",
        "recipes/r.yaml": "matrix: {v: [1, 2]}\nname: 'i-{{ v }}'\nlayers: [w]\n",
    }
    uses = [image.uses[0] for image in images_of(tmp_path, files)]
    texts = [
        spec.content
        for u in uses
        if isinstance(u.layer, FilesLayer)
        for spec in u.layer.files.values()
        if isinstance(spec, FileSpec)
    ]
    assert texts == ["1 i-1", "2 i-2"]
    # Nothing is fetched for it, so nothing of it stands in the lock twice.
    assert [use.pin_key for use in uses] == ["w", "w"]


def test_a_recipe_uses_where_things_lie(tmp_path: Path) -> None:
    recipe = (
        "base: a/b:1\nwebui: {root: /w, provided_by: base}\nhf_home: /h\n"
        "config: {workdir: '{{ webui.root }}', env: {M: '{{ webui.models_dir }}'}, cmd: ['{{ image.name }}']}\n"
    )
    [image] = expanded(tmp_path, recipe)
    config = image.recipe.config
    assert (config.workdir, config.env, config.cmd) == ("/w", {"M": "/w/models"}, [image.name])


@pytest.mark.parametrize("kind", ["checkpoint", "lora", "vae", "embedding", "hypernetwork"])
def test_a_hashed_model_stays_in_its_own_directory(tmp_path: Path, kind: str) -> None:
    layers = f"h:\n  kind: model\n  type: {kind}\n  source: file:x.pt\n  directory: elsewhere\n"
    assert "h.directory: the webui looks for a" in fault(tmp_path, BASE + "layers: [h]\n", layers)


# --- platforms -------------------------------------------------------------------------------------

_PLATFORMS = "platforms: [linux/arm64, linux/amd64]\n"


def test_an_image_for_each_platform_and_one_index(tmp_path: Path) -> None:
    recipe = (
        "matrix: {a: [x, y]}\nname: 'i-{{ a }}'\nrepository: shared\ntags: ['{{ a }}']\n"
        "platforms: [linux/arm/v7, linux/amd64]\nconfig: {env: {P: '{{ platform }} {{ os }} {{ architecture }}'}}\n"
        "annotations: {same: '{{ os }}', other: '{{ architecture }}'}\n"
    )
    images = expanded(tmp_path, recipe)
    assert [i.name for i in images] == ["i-x@linux/arm/v7", "i-x@linux/amd64", "i-y@linux/arm/v7", "i-y@linux/amd64"]
    assert [i.title for i in images] == ["i-x", "i-x", "i-y", "i-y"]
    assert {i.repository for i in images} == {"shared"}
    first, second = images[:2]
    assert first.recipe.platform == "linux/arm/v7" and first.recipe.platforms == []
    assert [i.recipe.config.env["P"] for i in (first, second)] == ["linux/arm/v7 linux arm", "linux/amd64 linux amd64"]
    assert first.index is not None and first.index == second.index
    assert first.index.platforms == ("linux/arm/v7", "linux/amd64")
    assert first.index.images == ("i-x@linux/arm/v7", "i-x@linux/amd64")
    assert first.index.annotations == {"same": "linux"}
    assert first.settings != second.settings


def test_one_platform_in_a_list_is_the_same_as_platform(tmp_path: Path) -> None:
    one = expanded(tmp_path / "a", "platform: linux/arm64\nhf_home: '/opt/{{ architecture }}'\n")
    listed = expanded(tmp_path / "b", "platforms: [linux/arm64]\nhf_home: '/opt/{{ architecture }}'\n")
    assert [replace(image, document=one[0].document) for image in listed] == list(one)
    assert (one[0].name, one[0].index, one[0].target.hf_home) == ("r", None, "/opt/arm64")


def test_what_does_not_depend_on_the_platform_is_one_use(tmp_path: Path) -> None:
    layers = (
        "tool-amd64: {kind: files, files: {/t: file:amd64}}\ntool-arm64: {kind: files, files: {/t: file:arm64}}\n"
        "by-os: {kind: files, files: {/o: 'file:{{ os }}/{{ architecture }}'}}\n"
    )
    recipe = f"{BASE}{_PLATFORMS}layers: [clip, 'tool-{{{{ architecture }}}}', by-os]\n"
    arm, amd = expanded(tmp_path, recipe, **{"layers/t.yaml": layers})
    assert arm.uses[0] is amd.uses[0]
    assert [use.pin_key for use in arm.uses] == ["clip", "tool-arm64", "by-os[architecture=arm64,os=linux]"]
    assert [use.pin_key for use in amd.uses] == ["clip", "tool-amd64", "by-os[architecture=amd64,os=linux]"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("platform: linux/amd64\nplatforms: [linux/amd64]\n", "'platform' and 'platforms' are both given"),
        ("name: '{{ 1 }}'\nplatform: linux/amd64\nplatforms: ['linux/{{ 1 }}']\n", "'platforms' are both given"),
        ("platforms: []\n", "'platforms' is empty"),
        ("platforms: [linux/amd64, linux/arm64, linux/amd64]\n", "platforms: linux/amd64 is listed twice"),
        ("platforms: [linux/arm64, linux/arm64/v8]\n", "linux/arm64/v8 is listed twice, which is linux/arm64"),
        ("vars: {a: amd64}\nplatforms: ['linux/{{ a }}', linux/amd64]\n", "linux/amd64 is listed twice"),
        ("platforms: [linux]\n", "platforms.0: expected os/architecture"),
        ("platforms: linux/amd64\n", "platforms: expected a list"),
        ("platforms: ['{{ architecture }}']\n", "'architecture' is undefined"),
        (f"name: 'i-{{{{ architecture }}}}'\n{_PLATFORMS}", "name: 'name' is not the same on every platform"),
        (f"tags: ['{{{{ architecture }}}}']\n{_PLATFORMS}", "tags: 'tags' is not the same on every platform"),
        (f"repository: '{{{{ architecture }}}}'\n{_PLATFORMS}", "'repository' is not the same on every platform"),
        (
            "annotations: {org.opencontainers.image.created: '2024-05-31'}\n",
            "created: '2024-05-31' is no date and time",
        ),
        (
            "vars: {v: x}\nannotations:\n  'dev.layerbuild.{{ v }}': y\n",
            "'dev.layerbuild.x' is layerbuild's own annotation",
        ),
    ],
)
def test_platforms_and_annotations_that_make_no_sense(tmp_path: Path, recipe: str, message: str) -> None:
    assert message in fault(tmp_path, recipe)


@pytest.mark.parametrize("name", ["platform", "os", "architecture"])
@pytest.mark.parametrize("section", ["vars: {%s: x}\n", "matrix: {%s: [x]}\n"])
def test_variables_that_platforms_give(tmp_path: Path, name: str, section: str) -> None:
    text = fault(tmp_path, section % name)
    assert f"'{name}' is layerbuild's own variable" in text and "see 'platforms'" in text


def test_twins_of_several_platforms(tmp_path: Path) -> None:
    files = {"recipes/a.yaml": f"name: x\n{_PLATFORMS}tags: [v1]\n", "recipes/b.yaml": "name: x\ntags: [v2]\n"}
    (twin,) = problems_of(tmp_path / "a", files)
    assert "two images are called 'x'" in twin.message
    files["recipes/b.yaml"] = "name: y\nrepository: x\ntags: [v1]\n"
    (shared,) = problems_of(tmp_path / "b", files)
    assert shared.message == "images x and y would both be x:v1"
    # A matrix of architectures is no list of platforms.
    files["recipes/b.yaml"] = "matrix: {a: [amd64, arm64]}\nname: z\nplatforms: ['linux/{{ a }}']\n"
    assert "two images are called 'z'" in str(problems_of(tmp_path / "c", files)[0])


def test_annotations_are_rendered(tmp_path: Path) -> None:
    recipe = (
        "vars: {commit: abc}\nannotations:\n  org.opencontainers.image.revision: '{{ commit }}'\n"
        "  org.opencontainers.image.title: '{{ image.name }} for {{ platform }}'\n"
    )
    (image,) = expanded(tmp_path, recipe)
    assert image.recipe.annotations == {
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.title": "r for linux/amd64",
    }

"""Finding and loading a project; every problem of a run together, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import problems_of, write_project
from layerbuild import project
from layerbuild.errors import ProjectError, UsageError

MODEL = "{kind: model, type: checkpoint, source: x}"


def shown(root: Path, files: dict[str, str]) -> list[str]:
    return [str(problem) for problem in problems_of(root, files)]


def one(root: Path, files: dict[str, str]) -> str:
    [text] = shown(root, files)
    return text


def test_the_root_is_the_nearest_directory_with_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_project(tmp_path / "p", {})
    (root / "layers/sub").mkdir()
    assert project.find_root(root / "layers/sub") == root.resolve()
    monkeypatch.chdir(root / "layers")
    assert project.find_root(Path()) == root.resolve()
    with pytest.raises(UsageError) as caught:
        project.find_root(tmp_path)
    assert "layerbuild demo" in str(caught.value.hint)


def test_the_lock_lies_at_the_root(tmp_path: Path) -> None:
    assert project.load(write_project(tmp_path, {})).lockfile == tmp_path / "lockfile.yaml"


def test_layers_and_recipes_are_loaded_by_file_name(tmp_path: Path) -> None:
    files = {
        "layers/b.yml": f"two: {MODEL}\n",
        "layers/a.yaml": f"one: {MODEL}\n",
        "layers/empty.yaml": "# nothing\n",
        "layers/notes.yxml": "nonsense: [",
        "layers/.hidden.yaml": "nonsense: [",
        "layers/x.j2": "{{",
        "recipes/b.yaml": "base: scratch\n",
        "recipes/a.yaml": "base: scratch\n",
    }
    loaded = project.load(write_project(tmp_path, files))
    assert [d.file for d in loaded.recipes] == ["recipes/a.yaml", "recipes/b.yaml"]
    assert {"one", "two"} <= set(loaded.layers)
    assert loaded.layers["two"].document.file == "layers/b.yml"
    assert loaded.layers["two"].raw["type"] == "checkpoint"
    assert loaded.layers["two"].directory == tmp_path / "layers"


def test_a_layer_of_the_project_wins_over_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = write_project(tmp_path / "c", {"layers/x.yaml": f"sd15: {MODEL}\nclip: {MODEL}\n"}) / "layers"
    monkeypatch.setattr(project, "catalog_directory", lambda: catalog)
    own = "sd15: {kind: model, type: lora, source: mine}\n"
    loaded = project.load(write_project(tmp_path / "p", {"layers/y.yaml": own}))
    assert loaded.layers["sd15"].raw["source"] == "mine"
    assert loaded.layers["clip"].document.file == "catalog/x.yaml"
    assert loaded.layers["clip"].directory == catalog


def test_the_catalog_itself_is_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_project(tmp_path, {"layers/x.yaml": f"sd15: {MODEL}\n"})
    monkeypatch.setattr(project, "catalog_directory", lambda: root / "layers")
    assert list(project.load(root).layers) == ["sd15"]


def test_all_problems_of_a_run_come_together(tmp_path: Path) -> None:
    files = {
        "layers/a.yaml": (
            "one:\n"
            "  kind: model\n"
            "  type: chekpoint\n"
            "  sorce: hf://a/b\n"
            "two:\n"
            "  kind: modle\n"
            "three: 3\n"
            "bad name: {}\n"
            "four:\n"
            "  kind: files\n"
            "  files:\n"
            "    /a:\n"
            "      source: x\n"
            "      mode: 0644\n"
            "    b: y\n"
        ),
        "layers/b.yaml": f"one: {MODEL}\n",
        "layers/c.yaml": "x: [\n",
        "layers/d.yaml": "- a\n",
        "recipes/r.yaml": "layres: [one]\nplatform: 3\nconfig:\n  env:\n    A: [1]\n",
    }
    known_model = (
        "description, licence, homepage, kind, type, source, sha256, size, mirrors, headers, filename, directory, "
        "sidecars, links"
    )
    types = (
        "'checkpoint', 'lora', 'vae', 'embedding', 'hypernetwork', 'upscaler', 'controlnet', 'vae-approx', "
        "'vae-taesd', 'codeformer', 'gfpgan', 'blip' or 'deepbooru'"
    )
    found = shown(tmp_path, files)
    assert [text.partition("\n")[0] for text in found] == [
        "layers/a.yaml:1: one: 'source' is missing",
        f"layers/a.yaml:3: one.type: input should be {types} (found 'chekpoint')",
        "layers/a.yaml:4: one.sorce: unknown key",
        "layers/a.yaml:6: two.kind: there is no kind 'modle'",
        "layers/a.yaml:7: three: a layer is a mapping",
        "layers/a.yaml:8: bad name: not a layer name",
        "layers/a.yaml:14: four.files./a.mode: expected text, found the number 420",
        "layers/a.yaml:15: four.files.b: expected an absolute path, which begins with '/' (found 'b')",
        "layers/b.yaml:1: one: this layer is already defined in layers/a.yaml:1",
        "layers/c.yaml:2: not valid YAML: while parsing a flow node did not find expected node content",
        "layers/d.yaml:1: this file must hold a mapping, 'key: value' lines",
        "recipes/r.yaml:1: layres: unknown key",
        "recipes/r.yaml:2: platform: expected text, found the number 3",
        "recipes/r.yaml:5: config.env.A: expected text, a number or true or false, found a list",
    ]
    hints = [text.partition("try: ")[2] for text in found]
    assert hints[1] == "did you mean 'checkpoint'?"
    assert hints[2] == f"known here: {known_model}; did you mean 'source'?"
    assert hints[3] == "one of: model, huggingface, webui, files, python; did you mean 'model'?"
    assert hints[6] == "put it in quotes"
    assert hints[8] == "rename one of them"
    assert hints[11].endswith("did you mean 'layers'?")
    with pytest.raises(ProjectError) as caught:
        project.load(tmp_path)
    assert str(caught.value).startswith("14 problems in the project:\n")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("layers: [1]", "layers.0: expected text, found the number 1", "put it in quotes"),
        ("name: 3.5", "name: expected text, found the number 3.5", "put it in quotes"),
        ("name: yes", "name: expected text, found true", "put it in quotes"),
        ("name:", None, None),
        ("base:", "base: expected text, found nothing", None),
        ("webui: {version: 1.6}", "webui.version: expected text, found the number 1.6", "put it in quotes"),
        ("webui: {rooot: /x}", "webui.rooot: unknown key", "did you mean 'root'?"),
        ("config: {cmd: /x}", "config.cmd: expected a list, found text", None),
        ("config: [x]", "config: expected a mapping, found a list", None),
        ("tags: {a: b}", "tags: expected a list, found a mapping", None),
        ("matrix: '{{ x }}'", "matrix: expected a mapping, found text", None),
        ("matrix: {a: '{{ x }}'}", "matrix.a: expected a list, found text", None),
        ("matrix: {a: []}", "matrix.a: list should have at least 1 item after validation, not 0", None),
        ("matrix: {a: [null]}", "matrix.a.0: expected text, a number or true or false, found nothing", None),
        ("matrix: {webui: [a]}", "matrix.webui: 'webui' is layerbuild's own variable", "choose another name"),
        ("vars: {hf_home: a}", "vars.hf_home: 'hf_home' is layerbuild's own variable", "choose another name"),
        ("vars: {image: a}", "vars.image: 'image' is layerbuild's own variable", "choose another name"),
        ("vars: {my-var: a}", "vars.my-var: not a variable name", "use letters, digits and '_'"),
        ("vars: {a: '{{ b }}'}", "vars.a: a variable's value is plain: {{ }} is not rendered here", None),
        ("matrix: {a: ['{{ b }}']}", "matrix.a: a variable's value is plain: {{ }} is not rendered here", None),
        ("matrix: {a: [x]}\nvars: {a: y}", "matrix.a: 'a' stands under 'vars' too", "remove one of them"),
    ],
)
def test_what_a_recipe_may_not_say(tmp_path: Path, text: str, message: str | None, hint: str | None) -> None:
    found = shown(tmp_path, {"recipes/r.yaml": f"{text}\n"})
    if message is None:
        assert found == []
        return
    [problem] = found
    assert problem.partition("\n")[0] == f"recipes/r.yaml:1: {message}"
    assert (hint or "") in problem
    assert ("try: " in problem) == (hint is not None)


def test_variables_of_layers_are_checked_too(tmp_path: Path) -> None:
    layer = "x:\n  kind: files\n  files: {/a: {content: x}}\n  vars:\n    image: x\n    p: '{{ q }}'\n"
    found = shown(tmp_path, {"layers/a.yaml": layer})
    assert [text.partition(":")[2].split(": ")[:2] for text in found] == [["5", "x.vars.image"], ["6", "x.vars.p"]]


@pytest.mark.parametrize(
    "layer",
    [
        "{kind: '{{ k }}', nonsense: 3}",
        "{kind: model, type: '{{ t }}', source: x}",
        "{kind: model, type: lora, source: x, sha256: '{{ s }}', size: '{{ n }}', filename: '{{ a }}/../b'}",
        "{kind: huggingface, source: '{{ s }}', repository: a/b}",
        "{kind: files, files: {'{{ p }}': {content: x}, '{{ p }}/../x': {content: x, mode: '{{ m }}'}}}",
        "{kind: webui, source: x, repositories: {'{{ r }}': y}}",
    ],
)
def test_what_markup_may_still_mend_is_left_for_rendering(tmp_path: Path, layer: str) -> None:
    assert shown(tmp_path, {"layers/a.yaml": f"x: {layer}\n"}) == []


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        ("{kind: model, type: '{{ t }}', source: 3}", "x.source"),
        ("{kind: model, type: '{{ t }}', source: x, colour: '{{ c }}'}", "x.colour"),
        ("{kind: files, files: {'{{ p }}': {sauce: '{{ x }}'}}}", "x.files.{{ p }}.sauce"),
        ("{kind: model, type: '{{ t }}'}", "x"),
    ],
)
def test_what_markup_cannot_mend_is_said_at_once(tmp_path: Path, layer: str, place: str) -> None:
    assert one(tmp_path, {"layers/a.yaml": f"x: {layer}\n"}).startswith(f"layers/a.yaml:1: {place}: ")

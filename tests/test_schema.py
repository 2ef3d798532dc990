"""The JSON Schema for editors agrees with what is checked."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from builders import COMMIT, SHA
from layerbuild.project import check, check_layer
from layerbuild.schema import Recipe, json_schema
from layerbuild.yamlfile import parse

GOOD_LAYERS = [
    f"{{kind: model, type: checkpoint, source: 'hf://a/b@main/c.safetensors', sha256: {SHA['a']}, size: 3}}",
    "{kind: model, type: lora, source: x, filename: s/a.pt, sidecars: {.json: x, .a.png: {source: y, size: 0}}}",
    "{kind: model, type: '{{ t }}', source: '{{ s }}', sha256: '{{ h }}', size: '{{ n }}', links: '{% if x %}'}",
    "{kind: huggingface, source: 'hf://a/b@main', files: [a, '!b'], absent: [c], refs: [main, refs/pr/1]}",
    f"{{kind: huggingface, source: 'file:x', repository: a/b, revision: {COMMIT}}}",
    "{kind: webui, source: 'git+https://h/r@v1', repositories: auto, submodules: true, lfs_pointers: ['*.png']}",
    "{kind: webui, source: 'git+https://h/r@v1', repositories: {'*': auto, BLIP: x}, submodules: [a/b]}",
    "{kind: webui, source: 'git+https://h/r@v1', mirrors: {'https://h/r': ['https://g/r']}}",
    "{kind: webui, source: 'git+https://h/r@v1', version: '1.10.1', repositories: {BLIP: 'git+https://h/b@x'}}",
    "{kind: files, files: {/a: 'file:x', /b/c: {content: x, mode: '0755'}, '{{ r }}/d': {link: e}}, vars: {p: 1}}",
]
BAD_LAYERS = [
    "{}",
    "{kind: modle}",
    "[]",
    "3",
    "{kind: model, type: checkpoint}",
    "{kind: model, type: chekpoint, source: x}",
    "{kind: model, type: checkpoint, source: x, sha256: abc}",
    "{kind: model, type: checkpoint, source: x, size: -1}",
    "{kind: model, type: checkpoint, source: x, colour: red}",
    "{kind: model, type: checkpoint, source: 3}",
    "{kind: model, type: checkpoint, source: x, sidecars: {.json: {sorce: y}}}",
    "{kind: huggingface, source: x, files: a}",
    "{kind: huggingface, source: 'file:x', repository: a/b, revision: main}",
    "{kind: webui, source: x, repositories: {'../x': y}}",
    "{kind: webui, source: x, repositories: automatic}",
    "{kind: webui, source: x, submodules: lib}",
    "{kind: webui, source: x, mirrors: [y]}",
    "{kind: files}",
    "{kind: files, files: {a: x}}",
    "{kind: files, files: {/a: 3}}",
    "{kind: files, files: {/a: {source: x, mode: '999'}}}",
    "{kind: files, files: {/a: {sauce: x}}}",
]
GOOD_RECIPES = [
    "{}",
    "{name: 'a-{{ x }}', matrix: {x: [a, 1, true]}, base: 'docker.io/a/b:1', layers: [a, '{{ x }}'], tags: [a]}",
    "{webui: {root: /w, provided_by: base, version: '1.10.1', inspect: false}, hf_home: /root/.cache/huggingface/}",
    "{config: {cmd: [/a], env: {A: 1, B: x, C: true}, workdir: /, user: '1000', ports: [3000/tcp], volumes: [/data]}}",
    "{platform: linux/arm64/v8, compression: gzip, stacking: weights-first, owner: {uid: 1000, gid: 2097151}}",
    "{platform: 'linux/{{ arch }}', owner: {uid: '{{ uid }}'}, webui: {root: '{{ root }}', inspect: '{{ i }}'}}",
]
BAD_RECIPES = [
    "[]",
    "{nmae: x}",
    "{matrix: {x: []}}",
    "{matrix: {x: a}}",
    "{matrix: {x: [[a]]}}",
    "{layers: a}",
    "{layers: [1]}",
    "{platform: linux}",
    "{compression: xz}",
    "{webui: {root: w}}",
    "{webui: {provided_by: me}}",
    "{owner: {uid: 2097152}}",
    "{owner: {uid: root}}",
    "{config: {cmd: /start.sh}}",
    "{config: {env: {A: [x]}}}",
    "{config: {env: {A=B: x}}}",
]


def agrees(schema: dict[str, Any], data: Any) -> bool:
    return not list(jsonschema.Draft202012Validator(schema).iter_errors(data))


@pytest.mark.parametrize(("text", "good"), [(t, True) for t in GOOD_LAYERS] + [(t, False) for t in BAD_LAYERS])
def test_layers(text: str, good: bool) -> None:
    assert agrees(json_schema("layers"), {"x": yaml.safe_load(text)}) == good
    document = parse(f"x: {text}\n", "layers/x.yaml")
    layer, problems = check_layer(document.data["x"], document, ("x",), before_rendering=True)
    assert (not problems) == good
    assert layer is None or good


@pytest.mark.parametrize(("text", "good"), [(t, True) for t in GOOD_RECIPES] + [(t, False) for t in BAD_RECIPES])
def test_recipes(text: str, good: bool) -> None:
    assert agrees(json_schema("recipe"), yaml.safe_load(text)) == good
    document = parse(text, "recipes/x.yaml")
    assert (not check(Recipe, document.data, document, (), before_rendering=True)[1]) == good


def test_layer_names() -> None:
    layer = yaml.safe_load(GOOD_LAYERS[0])
    for name, good in [
        ("a", True),
        ("webui-1.10.1", True),
        ("A_b+c", True),
        ("a b", False),
        ("-a", False),
        ("", False),
        ("é", False),
    ]:
        assert agrees(json_schema("layers"), {name: layer}) == good, name


@pytest.mark.parametrize("what", ["layers", "recipe"])
def test_the_schema_is_valid_and_documents_its_keys(what: Any) -> None:
    schema = json_schema(what)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == f"layerbuild {what}"
    text = json.dumps(schema)
    assert "Where the bytes come from" in text or what == "recipe"
    assert '"default": "linux/amd64"' in text or what == "layers"


# --- unsafe paths ----------------------------------------------------------------------------------

UNSAFE = ["../a", "a/../b", "./a", "a//b", "a\\b", "a\x7fb", "x" * 300]
RELATIVE = [
    ("filename", lambda p: {"kind": "model", "type": "lora", "source": "x", "filename": p}),
    ("directory", lambda p: {"kind": "model", "type": "lora", "source": "x", "directory": p}),
    ("absent.0", lambda p: {"kind": "huggingface", "source": "hf://a/b", "absent": [p]}),
    ("refs.0", lambda p: {"kind": "huggingface", "source": "hf://a/b", "refs": [p]}),
]


@pytest.mark.parametrize(("key", "make"), RELATIVE, ids=[key for key, _ in RELATIVE])
@pytest.mark.parametrize("path", [*UNSAFE, "/a", ""])
def test_relative_paths_are_checked(key: str, make: Any, path: str) -> None:
    document = parse(yaml.safe_dump({"x": make(path)}, sort_keys=False), "layers/x.yaml")
    _, [problem] = check_layer(document.data["x"], document, ("x",))
    assert problem.key == f"x.{key}"
    assert problem.line == document.line(("x", *[int(p) if p.isdigit() else p for p in key.split(".")]))
    assert "cannot be a path in an image" in problem.message
    assert problem.message.isprintable()


ABSOLUTE = [
    ("webui.root", lambda p: {"webui": {"root": p}}),
    ("webui.data_dir", lambda p: {"webui": {"data_dir": p}}),
    ("webui.models_dir", lambda p: {"webui": {"models_dir": p}}),
    ("webui.embeddings_dir", lambda p: {"webui": {"embeddings_dir": p}}),
    ("hf_home", lambda p: {"hf_home": p}),
    ("config.workdir", lambda p: {"config": {"workdir": p}}),
    ("config.volumes.0", lambda p: {"config": {"volumes": [p]}}),
]


@pytest.mark.parametrize(("key", "make"), ABSOLUTE, ids=[key for key, _ in ABSOLUTE])
@pytest.mark.parametrize("path", [*(f"/{p}" for p in UNSAFE), "//", "/a//", "a", ""])
def test_absolute_paths_are_checked(key: str, make: Any, path: str) -> None:
    document = parse(yaml.safe_dump(make(path)), "recipes/x.yaml")
    _, [problem] = check(Recipe, document.data, document, ())
    assert problem.key == key
    assert problem.line is not None
    assert "cannot be a path in an image" in problem.message or "expected an absolute path" in problem.message


@pytest.mark.parametrize(
    "path", [*(f"/{p}" for p in UNSAFE), "/", "/a/", "a", "", "/opt", "/opt/weights", "/opt/weights/sha256/x"]
)
def test_files_are_put_at_safe_paths_only(path: str) -> None:
    document = parse(yaml.safe_dump({"x": {"kind": "files", "files": {path: {"content": "x"}}}}), "layers/x.yaml")
    _, [problem] = check_layer(document.data["x"], document, ("x",))
    assert problem.key == f"x.files.{path}"
    assert problem.line == document.line(("x", "files", path))


@pytest.mark.parametrize("suffix", ["", ".", "yaml", "./x", "./../x", ".a\\b", ".a\nb", "." + "x" * 255])
def test_sidecars_lie_beside_their_model(suffix: str) -> None:
    layer = {"kind": "model", "type": "lora", "source": "x", "sidecars": {suffix: "y"}}
    document = parse(yaml.safe_dump({"x": layer}), "layers/x.yaml")
    _, [problem] = check_layer(document.data["x"], document, ("x",))
    assert problem.key == f"x.sidecars.{suffix}"
    assert problem.message.isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{kind: model, type: lora, source: 'https://h/a.pt', sidecars: {.pt: y}}",
            "'.pt' would lie where the model itself",
        ),
        ("{kind: model, type: lora, source: x, filename: a.ckpt, sidecars: {.ckpt: y}}", "'.ckpt' would lie where"),
        ("{kind: files, files: {/a: x, /a/b/c: y}}", "'/a' is a file here, and '/a/b/c' needs it to be a directory"),
        (
            "{kind: files, files: {/a: {source: x, content: y}}}",
            "needs exactly one of source, template, content and link",
        ),
        ("{kind: files, files: {/a: {}}}", "has none"),
        ("{kind: files, files: {/a: {content: x, size: 3}}}", "'sha256' and 'size' belong to 'source'"),
        ("{kind: files, files: {/a: {link: x, mode: '0644'}}}", "a link has no mode"),
        ("{kind: files, files: {/a: {link: ''}}}", "a link's target is printable text"),
        ('{kind: files, files: {/a: {link: "a\\nb"}}}', "a link's target is printable text"),
        ("{kind: huggingface, source: 'file:x'}", "needs 'repository' (ORG/NAME) and 'revision'"),
        (
            "{kind: huggingface, source: 'hf://a/b', repository: a/b}",
            "'repository' and 'revision' belong to a file: source",
        ),
        (f"{{kind: huggingface, source: 'file:x', repository: ../b, revision: {COMMIT}}}", "expected ORG/NAME"),
    ],
)
def test_what_does_not_fit_together(text: str, message: str) -> None:
    document = parse(f"x: {text}\n", "layers/x.yaml")
    _, [problem] = check_layer(document.data["x"], document, ("x",))
    assert message in problem.message


def test_a_password_in_the_wrong_field_is_not_repeated() -> None:
    document = parse("x: {kind: model, type: lora, source: x, sha256: 'https://u:secret@h/x'}\n", "layers/x.yaml")
    _, [problem] = check_layer(document.data["x"], document, ("x",))
    assert "secret" not in str(problem)

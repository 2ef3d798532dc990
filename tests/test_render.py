"""Jinja2 in string values: what is rendered, and what no template may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from layerbuild.errors import Problem
from layerbuild.render import has_markup, references, render_data, render_file
from layerbuild.yamlfile import KeyPath, parse

CONTEXT = {"name": "sd15", "n": 3, "on": True, "webui": {"root": "/w"}}
DOCUMENT = parse("a:\n  template: x\n", "layers/x.yaml")


def rendered(value: Any) -> tuple[Any, list[tuple[KeyPath, str, str | None]]]:
    found: list[tuple[KeyPath, str, str | None]] = []
    return render_data(value, CONTEXT, lambda path, message, hint: found.append((path, message, hint))), found


def fault(text: str) -> str:
    value, found = rendered({"a": [text]})
    assert value == {"a": [text]}
    [(path, message, _)] = found
    assert path == ("a", 0)
    assert "\n" not in message
    return message


def test_strings_and_keys_are_rendered_and_nothing_else() -> None:
    value = {
        "{{ name }}": ["{{ n + 1 }}", 7, None, True, "plain", "{% if on %}yes{% endif %}"],
        "x": {"y": "{{ webui.root }}/m"},
    }
    assert rendered(value) == ({"sd15": ["4", 7, None, True, "plain", "yes"], "x": {"y": "/w/m"}}, [])


def test_text_keeps_its_newlines() -> None:
    assert rendered("a {{ name }}\n\n") == ("a sd15\n\n", [])
    assert rendered("{{ '<&>' }}") == ("<&>", [])


def test_an_undefined_name_says_what_is_defined_and_no_values() -> None:
    _, [(path, message, hint)] = rendered({"a": "{{ nmae }}"})
    assert path == ("a",)
    assert message == "'nmae' is undefined"
    assert hint == "define it under 'matrix' or 'vars' of the recipe; defined here: n, name, on, webui"


@pytest.mark.parametrize("text", ["{{ webui.rot }}", "{{ webui['rot'] }}", "{{ missing.x }}", "{{ nothing() }}"])
def test_undefined_in_every_form(text: str) -> None:
    assert "undefined" in fault(text) or "no attribute" in fault(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ '%s'.format.__self__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ (name|attr('__class__')) }}",
    ],
)
def test_the_sandbox_holds(text: str) -> None:
    value, found = rendered(text)
    assert found or "class" not in value.replace(text, "")
    assert "<class" not in value


@pytest.mark.parametrize(
    "text",
    [
        "{{ joiner() }}",
        "{{ webui.items }}",
        "{{ [1]|map('int') }}",
        "{{ none }}",
        "{{ range }}",
        "{{ namespace() }}",
        "{{ [1] }}",
    ],
)
def test_what_would_print_an_address_or_nothing_is_refused(text: str) -> None:
    assert "only text and numbers can be written" in fault(text)


@pytest.mark.parametrize("text", ["{{ lipsum() }}", "{{ [1, 2]|random }}"])
def test_chance_has_no_place(text: str) -> None:
    assert fault(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ name",
        "{% if %}",
        "{{ 1 / 0 }}",
        "{% include 'x' %}",
        "{{ name + 1 }}",
        "{{ range(10**9)|list }}",
        "{% endif %}",
        "{{ {}[[]] }}",
    ],
)
def test_templates_that_fail(text: str) -> None:
    assert fault(text)


def test_two_keys_that_become_one() -> None:
    _, [(path, message, hint)] = rendered({"{{ name }}": 1, "sd15": 2})
    assert path == ("sd15",)
    assert message == "there is another key 'sd15' once both are rendered"
    assert hint == "remove one of them"


def test_references() -> None:
    value = {
        "{{ key }}": ["{{ a }}{{ b.c }}", "{% set d = 1 %}{{ d }}", "{{ webui.root }}{{ webui['x'] }}", "{{ e"],
        "f": 1,
    }
    assert references(value) == {"key", "a", "b.c", "webui.root", "webui"}
    assert references("plain") == set()


def test_markup() -> None:
    assert [has_markup(v) for v in ("{{", "{%", "{#", "{ {", 3, None, ["{{"])] == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


# --- template files --------------------------------------------------------------------------------


def file_of(directory: Path, files: dict[str, str], name: str = "x.j2") -> str | Problem:
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
    return render_file(directory, name, CONTEXT, DOCUMENT, ("a", "template"))


def problem_of(directory: Path, files: dict[str, str], name: str = "x.j2") -> Problem:
    found = file_of(directory, files, name)
    assert isinstance(found, Problem)
    assert (found.file, found.line, found.key) == ("layers/x.yaml", 2, "a.template")
    return found


def test_a_template_with_include_import_and_macro(tmp_path: Path) -> None:
    files = {
        "x.j2": "{% import 'sub/macros.j2' as m %}{% include 'sub/part.j2' %}\n{{ m.twice(name) }}\n",
        "sub/part.j2": "part {{ n }}\n",
        "sub/macros.j2": "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}",
    }
    assert file_of(tmp_path, files) == "part 3\n\nsd15sd15\n"


def test_a_changed_template_is_read_again(tmp_path: Path) -> None:
    assert file_of(tmp_path, {"x.j2": "one"}) == "one"
    assert file_of(tmp_path, {"x.j2": "other"}) == "other"


def test_a_missing_template_or_include_is_named(tmp_path: Path) -> None:
    found = problem_of(tmp_path, {"x.j2": "{% include 'sub/gone.j2' %}"})
    assert "no template 'sub/gone.j2'" in found.message
    assert found.hint == f"create {tmp_path.name}/sub/gone.j2"
    assert "no template 'y.j2'" in problem_of(tmp_path, {}, "y.j2").message


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/etc/passwd", "..", ""])
def test_templates_stay_in_their_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    directory = tmp_path / "layers"
    assert "secret" not in problem_of(directory, {"x.j2": "x"}, name).message.replace(repr(name), "")
    assert problem_of(directory, {"x.j2": f"{{% include {name!r} %}}"})


def test_template_errors_name_template_and_line(tmp_path: Path) -> None:
    assert problem_of(tmp_path, {"x.j2": "a\n{% if %}\n"}).message.startswith("template x.j2, line 2: ")
    found = problem_of(tmp_path, {"x.j2": "{% include 'y.j2' %}", "y.j2": "\n\n{{ "})
    assert found.message.startswith("template y.j2, line 3: ")
    assert problem_of(tmp_path, {"x.j2": "{{ nmae }}"}).message == "template x.j2: 'nmae' is undefined"
    assert problem_of(tmp_path, {"x.j2": "{{ 1 / 0 }}"}).message == "template x.j2 fails: division by zero"
    assert "recursion" in problem_of(tmp_path, {"x.j2": "{% include 'x.j2' %}"}).message
    (tmp_path / "z.j2").write_bytes(b"\xff")
    assert problem_of(tmp_path, {}, "z.j2")

"""Whatever a file looks like: what was there stays, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.adding.declaration import Declaration, layer_name
from layerbuild.adding.insertion import with_entries, with_item
from layerbuild.errors import ProjectError, UsageError
from layerbuild.yamlfile import parse

NEW = Declaration(
    name="new-one",
    values={"kind": "model", "type": "lora", "source": "file:a: b #c.safetensors", "sha256": "1" * 64},
    comments=("from a page\nkind: evil", "\x1b[31m"),
)


def added(text: str) -> str | None:
    return with_entries(text, [], {NEW.name: dict(NEW.values)}, NEW.text())


names = st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True).filter(lambda n: n != NEW.name)
scalars = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20),
    st.sampled_from(["a\nb\n", "a\n\n\n", "#", "- x", "{{ a }}", "yes", "1.10", "a: b", "'", '"']),
    st.integers(),
    st.booleans(),
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=5)
layouts = st.fixed_dictionaries(
    {
        "default_flow_style": st.sampled_from([None, False, True]),
        "default_style": st.sampled_from([None, '"', "'", "|", ">"]),
        "indent": st.sampled_from([2, 4]),
        "explicit_end": st.booleans(),
    }
)


heads = st.sampled_from(["", "# a comment\n", "\n\n", "   \n"])
tails = st.one_of(heads, st.just("# tail"))


@given(data=st.dictionaries(names, values, max_size=3), layout=layouts, head=heads, tail=tails, crlf=st.booleans())
def test_every_byte_that_was_there_stays(data: dict[str, Any], layout: Any, head: str, tail: str, crlf: bool) -> None:
    text = head + (yaml.safe_dump(data, sort_keys=False, allow_unicode=True, **layout) if data else "") + tail
    text = text.replace("\n", "\r\n") if crlf else text
    try:
        before = parse(text, "x").data
    except ProjectError:
        return
    found = added(text)
    if found is None:
        return  # another file takes it
    assert parse(found, "x").data == {**(before or {}), NEW.name: NEW.values}
    rest = iter(found)
    assert all(character in rest for character in text), "something was taken away"
    if not layout["default_flow_style"]:
        assert found.startswith(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "a: {kind: x}\n",
        "a:\n  kind: x",
        "a:\r\n  kind: x\r\n",
        "a: |\n  text\n",
        "a: |+\n  text\n\n\n",
        "  a: 1\n  b: 2\n",
        "---\na: 1\n# end\n",
        "a: &x [1]\nb: *x\n",
        "\ufeffa: 1\n",
    ],
)
def test_usual_files_take_it_at_their_end(text: str) -> None:
    found = added(text)
    assert found is not None and found.startswith(text)
    assert parse(found, "x").data == {**(parse(text, "x").data or {}), NEW.name: NEW.values}
    assert "\r\n" not in found.replace("\r\n", "") and ("\r\n" in text or "\r" not in found)


@pytest.mark.parametrize("text", ["a: 1\n...\n", "new-one: 1\n", "- a\n", "text\n"])
def test_no_place_is_no_change(text: str) -> None:
    assert added(text) is None


def test_comments_stay_comments() -> None:
    text = NEW.text()
    assert text.startswith("# from a page kind: evil\n") and "\x1b" not in text
    assert list(yaml.safe_load(text)) == [NEW.name]


def test_markup_of_others_is_refused() -> None:
    for values in ({"source": "file:{{ x }}"}, {"source": "a", "extensions": {"{% x": "y"}}):
        with pytest.raises(UsageError, match="markup"):
            Declaration(name="x", values=values).text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("layers: [a, b]  # c\n", "layers: [a, b, new]  # c\n"),
        ("layers: [a, b,]\n", "layers: [a, b, new,]\n"),
        ("layers: []\nname: x\n", "layers: [new]\nname: x\n"),
        ("layers:\n  - a  # one\n  # two\nname: x\n", "layers:\n  - a  # one\n  - new\n  # two\nname: x\n"),
        ("layers:\n- a", "layers:\n- a\n- new\n"),
        ('layers:\n  - "a]"\n\nname: x', 'layers:\n  - "a]"\n  - new\n\nname: x'),
        ("name: x\n", "name: x\n\nlayers:\n  - new\n"),
        ("layers:\nname: x\n", "layers: [new]\nname: x\n"),
        ("layers: [\n  a,\n  b\n]\n", "layers: [\n  a,\n  b, new\n]\n"),
        ("layers: [a]\r\n", "layers: [a, new]\r\n"),
        ("layers: 5\n", None),
        ("layers: &l [a]\nvars: *l\n", None),
    ],
)
def test_an_item_for_a_list(text: str, found: str | None) -> None:
    assert with_item(text, "layers", "new") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("w:\n  kind: webui\n\nx: 1\n", "w:\n  kind: webui\n  extensions:\n    e: git+x\n\nx: 1\n"),
        ("w:\n  extensions:\n    a: b  # c\nx: 1\n", "w:\n  extensions:\n    a: b  # c\n    e: git+x\nx: 1\n"),
        ("w: {kind: webui}\n", "w: {kind: webui, extensions: {e: git+x}}\n"),
        ("w:\n  extensions: {}\n", "w:\n  extensions: {e: git+x}\n"),
        ("w:\n  extensions: {e: f}\n", None),
    ],
)
def test_an_entry_deep_inside(text: str, found: str | None) -> None:
    assert with_entries(text, ["w", "extensions"], {"e": "git+x"}) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Dream Shaper_8 (pruned).safetensors", "dream-shaper-8-pruned"),
        ("v1.5.ckpt", "v1.5"),
        ("sd_xl_base_1.0.safetensors", "sd-xl-base-1.0"),
        ("Éclair 猫.pt", "eclair"),
        ("猫.safetensors", "model"),
        ("../../x", "x"),
        ("a" * 200, "a" * 60),
    ],
)
def test_names_of_layers(text: str, name: str) -> None:
    assert layer_name(text) == name

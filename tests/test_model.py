"""Values: canonical JSON, keys and what they depend on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import SHA, sha256
from layerbuild import model
from layerbuild.model import Content, Descriptor, Instance, canonical_json

TEXT = st.text(max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_canonical_json_depends_on_the_value_only(value: Any) -> None:
    def shuffled(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: shuffled(item[key]) for key in reversed(list(item))}
        return [shuffled(i) for i in item] if isinstance(item, list) else item

    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(shuffled(value)) == text
    assert text.isascii()
    assert "\n" not in text


def test_canonical_json_is_frozen() -> None:
    assert canonical_json({"b": [1, None, True], "a": "ü"}) == '{"a":"\\u00fc","b":[1,null,true]}'


def instance(**changes: Any) -> Instance:
    fields: dict[str, Any] = {"kind": "links", "revision": 1, "parts": ('{"a":1}',), "label": "x"}
    return Instance(**(fields | changes))


def test_a_key_is_frozen_and_depends_on_identity_only(monkeypatch: pytest.MonkeyPatch) -> None:
    key = instance().key
    assert key == sha256(b'{"inputs":{"a":1},"kind":"links","revision":1,"tar":1}')
    assert instance(label="another").key == key
    assert instance(label="another") == instance() != instance(revision=2)
    assert instance(parts=('{"a"', ":1}")) == instance() and len({instance(parts=('{"a"', ":1}")), instance()}) == 1
    assert instance(parts=('{"a"', ":1}")).inputs == '{"a":1}'
    others = [instance(kind="files"), instance(revision=2), instance(parts=('{"a":2}',))]
    assert len({key, *(other.key for other in others)}) == 4
    monkeypatch.setattr(model, "TAR_REVISION", model.TAR_REVISION + 1)
    assert instance().key != key


def test_content_ids() -> None:
    assert Content(size=1, sha256=SHA["a"], git_blob="b" * 40).id == f"sha256:{SHA['a']}"
    assert Content(size=None, git_blob="b" * 40).id == "git:" + "b" * 40


def test_the_mtime_is_what_zip_holds_in_every_time_zone() -> None:
    # ZIP begins at 1980-01-01 local time; time zones reach from -12 to +14 hours.
    assert model.MTIME == 315619200
    assert model.MTIME - 14 * 3600 >= 315532800


def test_descriptor_json_in_the_order_of_the_specification() -> None:
    plain = Descriptor(media_type="m", digest=f"sha256:{SHA['a']}", size=3)
    assert list(plain.as_json()) == ["mediaType", "digest", "size"]
    noted = Descriptor(media_type="m", digest=f"sha256:{SHA['a']}", size=3, annotations=(("k", "v"),))
    assert noted.as_json()["annotations"] == {"k": "v"}

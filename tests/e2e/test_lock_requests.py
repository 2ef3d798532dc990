"""What locking asks the Hub: one listing for each repository and revision, and a read or two for each header."""

from __future__ import annotations

from pathlib import Path

import pytest

import locking
from fixtures.hub import Hub
from fixtures.project import Project

_REPOSITORIES, _FILES = 4, 10
_LONG = _REPOSITORIES


@pytest.fixture
def many(tmp_path: Path, hub: Hub) -> Project:
    """40 single-file sources of 4 repositories; 4 of them have a long header."""
    root = locking.declare(tmp_path / "project", hub, _REPOSITORIES, _FILES)
    return Project(root, tmp_path / "store", {"HF_ENDPOINT": hub.endpoint})


def test_each_question_once(many: Project, hub: Hub) -> None:
    many.run("lock")
    reads = _REPOSITORIES * _FILES + _LONG
    assert hub.counted() == {"metadata": _REPOSITORIES, "addresses": reads, "contents": reads}
    assert all("range" in asked.headers for asked in hub.cdn_requests)
    facts = many.lock["files"].values()
    assert len(facts) == _REPOSITORIES * _FILES and all(fact["safetensors"] for fact in facts)
    assert sum(fact["header_size"] > locking.LONG for fact in facts) == _LONG


def test_what_is_locked_takes_no_request(many: Project, hub: Hub) -> None:
    many.run("lock")
    before = many.lockfile.read_bytes()
    hub.forget()
    many.run("lock")
    assert hub.counted() == {} and many.lockfile.read_bytes() == before
    added = "more: {kind: model, type: lora, source: 'hf://org/models-01@main/README.md'}\n"
    recipe = "name: more\nwebui: {root: /w}\nlayers: [more, m00-000]\n"
    many.write({"layers/more.yaml": added, "recipes/more.yaml": recipe}).run("lock", "--no-inspect")
    # A small file has only git's name: it is fetched once.
    assert hub.counted() == {"metadata": 1, "addresses": 1}


def test_headers_are_left_for_later(many: Project, hub: Hub) -> None:
    many.run("lock", "--no-inspect")
    assert hub.counted() == {"metadata": _REPOSITORIES}
    assert all(set(fact) == {"size"} for fact in many.lock["files"].values())
    many.run("lock", "--check")
    many.run("build")
    learnt = many.lock["files"].values()
    assert all(fact["safetensors"] and fact["addnet"] for fact in learnt)
    hub.forget()
    other = many.sibling("other", {"HF_ENDPOINT": hub.endpoint})
    other.write({p.relative_to(many.root).as_posix(): p.read_bytes() for p in many.root.glob("*/*.yaml")}).run("lock")
    assert other.run("plan", "--json").code == 0
    for sha256, fact in other.lock["files"].items():
        assert fact.items() <= many.lock["files"][sha256].items()


def test_the_benchmark_reports_what_was_asked(tmp_path: Path, hub: Hub) -> None:
    found = locking.run(tmp_path, hub, 2, 10)
    asked = {row["step"]: row["asked"] for row in found["rows"]}
    assert asked == {
        "lock --no-inspect": {"metadata": 2},
        "lock": {"metadata": 2, "addresses": 22, "contents": 22},
        "lock, unchanged": {},
        "lock --update-all": {"metadata": 2},
    }
    shown = locking.report(found).splitlines()
    assert len(shown) == 6 and [cell.strip() for cell in shown[3].split("|")[1:4]] == ["lock", "2", "22"]

"""An image of 40 layers that is pushed again: how many requests that takes, and that none of them carries a blob."""

from __future__ import annotations

from collections import Counter

import pytest

from fixtures.project import Project
from fixtures.registry import Front

_LAYERS = 40
_RECIPE = "name: worker\nwebui: {{root: /webui}}\nlayers: [{layers}]\ntags: [{tags}]\n"


def _recipe(*tags: str) -> str:
    return _RECIPE.format(layers=", ".join(f"l{n}" for n in range(_LAYERS)), tags=", ".join(tags))


@pytest.fixture
def pushed(project: Project, registry: Front) -> Project:
    """The image is there. What the registry was asked for that is forgotten."""
    layers = "".join(f"l{n}: {{kind: files, files: {{/opt/{n}: {{content: '{n}'}}}}}}\n" for n in range(_LAYERS))
    project.write({"layers/l.yaml": layers, "recipes/r.yaml": _recipe("v1")}).run("lock")
    _push(project, registry)
    return project


def _push(project: Project, registry: Front) -> Counter[str]:
    before = len(registry.records)
    project.run("push", f"{registry.host}/{registry.prefix}")
    new = registry.records[before:]
    return Counter(f"{r.method} {'manifest' if '/manifests/' in r.path else 'blob'}" for r in new)


def test_the_first_push(pushed: Project, registry: Front) -> None:
    """A question, a session and a body for each layer; the config is as new as its manifest, and not asked for."""
    found = Counter(f"{r.method} {'manifest' if '/manifests/' in r.path else 'blob'}" for r in registry.records)
    layers = found["HEAD blob"]
    assert layers >= _LAYERS
    assert found == {
        "GET manifest": 1,
        "HEAD blob": layers,
        "POST blob": layers + 1,
        "PUT blob": layers + 1,
        "PUT manifest": 1,
    }


def test_unchanged(pushed: Project, registry: Front) -> None:
    assert _push(pushed, registry) == {"GET manifest": 1}


def test_unchanged_and_from_another_machine(pushed: Project, registry: Front) -> None:
    """It has the lock, with its receipts, and nothing else."""
    other = pushed.sibling("other")
    for path in ("layers/l.yaml", "recipes/r.yaml", "lockfile.yaml"):
        other.write({path: (pushed.root / path).read_bytes()})
    assert _push(other, registry) == {"GET manifest": 1}


def test_under_another_tag(pushed: Project, registry: Front) -> None:
    """One request for each blob and each manifest at most: of the tag that is there, its blobs are known."""
    pushed.write({"recipes/r.yaml": _recipe("v1", "v2")})
    assert _push(pushed, registry) == {"GET manifest": 2, "PUT manifest": 2}


def test_after_its_tag_was_moved(pushed: Project, registry: Front) -> None:
    """Nothing is known by a tag, so each blob is asked for once; none is sent."""
    pushed.write({"recipes/r.yaml": _recipe("v2")})
    before = registry.uploaded()
    found = _push(pushed, registry)
    blobs = found.pop("HEAD blob")
    assert blobs >= _LAYERS + 1
    assert found == {"GET manifest": 1, "PUT manifest": 1}
    manifest = registry.requests("PUT", "/manifests/v2")[0]
    assert registry.uploaded() - before == manifest.received

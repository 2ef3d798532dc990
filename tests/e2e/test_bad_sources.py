"""Sources that lie, break off or refuse: exit code 1, a message that helps, and nothing half done."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from e2e.readers import no_image, sha256
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.project import BIG, Project, Result, safetensors
from fixtures.web import Answer, Web

_MODEL = safetensors(BIG, {"format": "pt"}, seed=7)
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [it]\ntags: [v1]\n"


def _declare(project: Project, **declaration: Any) -> Project:
    lines = "".join(f"  {key}: {value}\n" for key, value in declaration.items())
    return project.write({"layers/l.yaml": f"it:\n{lines}", "recipes/r.yaml": _RECIPE})


def _model(project: Project, source: str, **more: Any) -> Project:
    return _declare(project, kind="model", type="checkpoint", source=source, **more)


def _nothing_happened(project: Project, *, locked: bool) -> None:
    """No lock where there was none, no layout, and in the store whole files only."""
    assert project.lockfile.exists() == locked
    assert not locked or project.lock["receipts"] == {}
    assert no_image(project.root / "out")
    assert project.leftovers() == []
    for path in (project.store / "files").glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _refused_at_lock(project: Project, *words: str) -> Result:
    found = project.run("lock", check=False).failed(1, "it cannot be locked", *words)
    _nothing_happened(project, locked=False)
    return found


def _refused_at_push(project: Project, *words: str) -> Result:
    project.run("lock")
    before = project.lockfile.read_bytes()
    found = project.run("push", "oci:out", check=False).failed(1, *words)
    _nothing_happened(project, locked=True)
    assert project.lockfile.read_bytes() == before
    return found


# --- bytes that are not what was pinned --------------------------------------------------------------


def test_other_bytes_than_the_declared_sha256(project: Project, web: Web) -> None:
    address = web.route("/model.safetensors", _MODEL[:-1] + b"!")
    _model(project, address, sha256=sha256(_MODEL), size=len(_MODEL))
    _refused_at_push(project, "model.safetensors", "not what was pinned", sha256(_MODEL), "--update")
    assert sha256(_MODEL) not in project.stored_files()


def test_more_bytes_than_the_declared_size(project: Project, web: Web) -> None:
    _model(project, web.route("/model.safetensors", _MODEL + b"more"), sha256=sha256(_MODEL), size=len(_MODEL))
    _refused_at_push(project, "model.safetensors", str(len(_MODEL)))


def test_fewer_bytes_than_the_declared_size(project: Project, web: Web) -> None:
    _model(project, web.route("/model.safetensors", _MODEL[:-1000]), sha256=sha256(_MODEL), size=len(_MODEL))
    _refused_at_push(project, "model.safetensors", str(len(_MODEL)))


def test_download_that_always_breaks_off(project: Project, web: Web) -> None:
    address = web.route("/model.safetensors", Answer(body=_MODEL, cut=300 * 1024, ranges=False))
    _model(project, address, sha256=sha256(_MODEL), size=len(_MODEL))
    _refused_at_push(project, "model.safetensors")
    # The server recovers, and so does the next run.
    web.route("/model.safetensors", _MODEL)
    project.run("push", "oci:out")
    assert (project.root / "out/index.json").is_file()


def test_download_that_breaks_off_once_goes_on_where_it_stopped(project: Project, web: Web) -> None:
    address = web.route("/model.safetensors", _MODEL)
    _model(project, address, sha256=sha256(_MODEL), size=len(_MODEL)).run("lock")
    sent = web.sent["/model.safetensors"]
    web.route("/model.safetensors", Answer(body=_MODEL, cut=BIG // 2), _MODEL)
    project.run("build")
    assert web.sent["/model.safetensors"] - sent == len(_MODEL)


def test_hub_that_sends_another_file_than_it_announced(project: Project, hub: Hub) -> None:
    hub.add("acme/sd", lfs={"sd.safetensors": _MODEL})
    project.environ["HF_ENDPOINT"] = hub.endpoint
    _model(project, "hf://acme/sd@main/sd.safetensors").run("lock")
    header = len(_MODEL) - BIG
    hub.script(f"/lfs/{sha256(_MODEL)}", _MODEL[:header] + bytes(BIG))
    before = project.lockfile.read_bytes()
    project.run("build", check=False).failed(1, "sd.safetensors", "not what was pinned")
    _nothing_happened(project, locked=True)
    assert project.lockfile.read_bytes() == before


def test_error_page_under_a_models_name(project: Project, web: Web) -> None:
    page = b"<!doctype html><title>Log in</title>" * 100
    address = web.route("/model.safetensors", Answer(body=page, headers={"Content-Type": "text/html"}))
    _model(project, address)
    found = project.run("lock", check=False).failed(1)
    assert "html" in found.err.lower() or "safetensors" in found.err
    assert not project.lockfile.exists()


# --- a Hub that refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://acme/private@main/sd.safetensors", ["acme/private", "HF_TOKEN"]),
        ("hf://acme/unknown@main/sd.safetensors", ["acme/unknown"]),
        ("hf://acme/open@nowhere/sd.safetensors", ["nowhere"]),
        ("hf://acme/open@main/missing.safetensors", ["missing.safetensors"]),
    ],
    ids=["401", "404", "revision", "entry"],
)
def test_hub_does_not_have_it(project: Project, hub: Hub, source: str, words: list[str]) -> None:
    hub.add("acme/private", lfs={"sd.safetensors": _MODEL}, private=True)
    hub.add("acme/open", lfs={"sd.safetensors": _MODEL})
    project.environ["HF_ENDPOINT"] = hub.endpoint
    _refused_at_lock(_model(project, source), *words)


def test_unknown_repository_with_a_token(project: Project, hub: Hub) -> None:
    project.environ.update(HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token)
    found = _refused_at_lock(_model(project, "hf://acme/unknown@main/sd.safetensors"), "acme/unknown")
    assert hub.token not in found.err


def test_gated_model(project: Project, hub: Hub) -> None:
    hub.add("acme/gated", lfs={"sd.safetensors": _MODEL}, gated=True)
    project.environ["HF_ENDPOINT"] = hub.endpoint
    _model(project, "hf://acme/gated@main/sd.safetensors")
    # Its listing is public: there is something to pin, and nothing to build from.
    found = _refused_at_push(project, "acme/gated", "HF_TOKEN")
    assert "licence" in found.err or "access" in found.err.lower()
    project.run("push", "oci:out", env={"HF_TOKEN": hub.token})
    texts = [project.lockfile.read_bytes(), *(p.read_bytes() for p in project.store.rglob("*") if p.is_file())]
    assert not any(hub.token.encode() in text or b"Signature=" in text for text in texts)


def test_hub_that_is_down(project: Project, hub: Hub) -> None:
    hub.add("acme/sd", lfs={"sd.safetensors": _MODEL})
    project.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    _refused_at_lock(_model(project, "hf://acme/sd@main/sd.safetensors"), "127.0.0.1:9")


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "a\\..\\b", "a/\x00b", "."])
def test_hub_lists_a_path_that_leads_outside(project: Project, hub: Hub, path: str) -> None:
    hub.hostile("acme/evil", [{"rfilename": path, "size": 2, "blobId": hashlib.sha1(b"blob 2\0{}").hexdigest()}])
    project.environ["HF_ENDPOINT"] = hub.endpoint
    _refused_at_lock(_declare(project, kind="huggingface", source="hf://acme/evil@main"), "acme/evil")


@pytest.mark.parametrize("listing", [{}, [1], [{"rfilename": 3}], [{"rfilename": "a", "size": -1, "blobId": "0" * 40}]])
def test_hub_lists_nonsense(project: Project, hub: Hub, listing: Any) -> None:
    hub.hostile("acme/evil", listing)
    project.environ["HF_ENDPOINT"] = hub.endpoint
    _refused_at_lock(_declare(project, kind="huggingface", source="hf://acme/evil@main"), "acme/evil")


# --- git, local files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", ".git", "."])
def test_git_tree_with_a_path_that_leads_outside(project: Project, name: str) -> None:
    repo = GitRepo(project.root / "webui.git")
    blob = repo.blob(b"x")
    inner = repo.tree([("100644", "passwd", blob)])
    repo.commit_tree(repo.tree([("40000", name, inner)]))
    _declare(project, kind="webui", source="git+file:webui.git@main", version="1.10.1")
    _refused_at_lock(project, "webui.git")


def test_git_revision_that_is_not_there(project: Project) -> None:
    GitRepo(project.root / "webui.git").commit({"webui.py": b""})
    _declare(project, kind="webui", source="git+file:webui.git@v9", version="1.10.1")
    _refused_at_lock(project, "v9")


def test_local_file_that_is_not_there(project: Project) -> None:
    _refused_at_lock(_model(project, "file:models/missing.safetensors"), "models/missing.safetensors")


def test_scheme_that_nobody_knows(project: Project) -> None:
    found = project.run("-q", "lock", check=False)
    assert found.code == 0  # an empty project locks
    project.lockfile.unlink()
    found = _model(project, "gopher://example.org/x.safetensors").run("lock", check=False)
    assert found.code in (1, 2) and "gopher" in found.err and "Traceback" not in found.err
    assert not project.lockfile.exists()

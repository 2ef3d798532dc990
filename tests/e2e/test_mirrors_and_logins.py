"""Mirrors and headers of declarations, and files of which nobody publishes a digest, from lock to build."""

from __future__ import annotations

import pytest

from e2e.readers import sha256
from fixtures.civitai import Civitai
from fixtures.project import BIG, Project, safetensors
from fixtures.s3 import S3
from fixtures.web import Answer, Asked, Web

_MODEL = safetensors(BIG, {"format": "pt"}, seed=4)
_OTHER = safetensors(BIG, {"format": "pt"}, seed=5)
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [night]\ntags: [v1]\n"
_SECRET = "a-value-that-must-never-be-seen"


def declare(project: Project, source: str, more: str = "") -> Project:
    layer = f"night: {{kind: model, type: checkpoint, source: '{source}'{more}}}\n"
    return project.write({"layers/all.yaml": layer, "recipes/worker.yaml": _RECIPE})


def test_a_mirror_moves_no_pin(project: Project, web: Web, elsewhere: Web) -> None:
    source, mirror = web.route("/night.safetensors", _MODEL), elsewhere.route("/n", _MODEL)
    declare(project, source).run("lock")
    before = project.lock
    declare(project, source, f", mirrors: ['{mirror}']")
    project.run("lock", "--check", check=False).failed(3, "night has other mirrors or headers")
    web.route("/night.safetensors", Answer(status=404))
    asked = len(web.requests)
    project.run("lock")
    project.run("lock", "--check")
    assert len(web.requests) == asked and not elsewhere.requests, "nobody was asked for what is pinned"
    after = project.lock
    assert after["layers"]["night"]["pins"]["model"].pop("mirrors") == [mirror]
    assert after == before
    project.store.rename(project.store.with_name("another"))
    built = project.run("build")
    assert f"trying {mirror}" in built.err
    assert sha256(_MODEL) in project.stored_files()


def test_a_mirror_that_answers_instead_leaves_the_same_lock(project: Project, web: Web, elsewhere: Web) -> None:
    source, mirror = web.route("/night.safetensors", _MODEL), elsewhere.route("/n", _MODEL)
    declare(project, source, f", mirrors: ['{mirror}']").run("lock")
    other = declare(project.sibling("other"), source, f", mirrors: ['{mirror}']")
    web.route("/night.safetensors", Answer(status=410))
    other.run("lock")
    assert other.lockfile.read_bytes() == project.lockfile.read_bytes()


def test_what_was_fetched_to_be_locked_is_not_fetched_to_be_built(project: Project, web: Web) -> None:
    locked = declare(project, web.route("/night.safetensors", _MODEL)).run("lock")
    assert "nobody publishes a digest of" in locked.err
    assert web.sent["/night.safetensors"] == len(_MODEL)
    assert project.lock["files"][sha256(_MODEL)]["safetensors"] is True
    project.run("build")
    assert web.sent["/night.safetensors"] == len(_MODEL)


def test_headers_are_locked_by_reference(project: Project, web: Web) -> None:
    def private(asked: Asked) -> Answer:
        known = asked.headers.get("authorization") == f"Bearer {_SECRET}"
        return Answer(body=_MODEL) if known else Answer(status=401)

    web.handle("/", private)
    declare(project, f"{web.url}/n.safetensors", ", headers: {Authorization: 'Bearer ${MY_TOKEN}'}")
    project.run("lock", check=False).failed(1, "the variable MY_TOKEN is not set", "set MY_TOKEN")
    project.environ["MY_TOKEN"] = _SECRET
    seen = [project.run("--debug", "lock")]
    assert project.lock["layers"]["night"]["pins"]["model"]["headers"] == {"Authorization": "Bearer ${MY_TOKEN}"}
    project.store.rename(project.store.with_name("another"))
    seen.append(project.run("--debug", "build"))
    project.environ["MY_TOKEN"] = f"{_SECRET}-old"
    seen.append(refused := project.run("--debug", "lock", "--update-all", check=False))
    assert "may not be downloaded" in refused.err
    nowhere(project, _SECRET, "".join(result.out + result.err for result in seen))


def test_no_secret_of_any_source_is_left_anywhere(project: Project, web: Web, civitai: Civitai) -> None:
    civitai.add(7, {"night.safetensors": _MODEL}, login="401")
    (project.home / ".netrc").write_text(f"machine 127.0.0.1 login me password {_SECRET}\n")
    project.environ |= {"CIVITAI_ENDPOINT": civitai.endpoint, "CIVITAI_TOKEN": civitai.token}
    mirror = web.route("/n", Answer(status=401))
    declare(project, "civitai://7", f", mirrors: ['{mirror}']")
    seen = [project.run("--debug", "lock"), project.run("--debug", "build")]
    assert any("authorization" in r.headers for r in civitai.web.requests)
    project.store.rename(project.store.with_name("another"))
    civitai.versions[7]["files"] = []
    seen.append(failed := project.run("--debug", "push", "oci:out", check=False))
    assert "cannot be had, and neither can its mirrors" in failed.err
    assert any("authorization" in r.headers for r in web.requests)
    text = "".join(result.out + result.err for result in seen)
    for secret in (civitai.token, civitai.signature, _SECRET):
        nowhere(project, secret, text)


def test_a_bucket_takes_over_from_civitai(project: Project, civitai: Civitai, s3: S3) -> None:
    s3.bucket("models")
    s3.put("models", "night", _MODEL, sha256=True)
    s3.put("models", "day.safetensors", _OTHER, sha256=True)
    civitai.add(7, {"night.safetensors": _MODEL})
    project.environ |= {"CIVITAI_ENDPOINT": civitai.endpoint, **s3.environ}
    layers = """
night: {kind: model, type: checkpoint, source: "civitai://7", mirrors: ["s3://models/night"]}
day: {kind: model, type: checkpoint, source: "s3://models/day.safetensors"}
"""
    project.write({"layers/all.yaml": layers, "recipes/worker.yaml": _RECIPE.replace("[night]", "[night, day]")})
    seen = [project.run("--debug", "lock")]
    assert "fetched once" not in seen[0].err and project.stored_files() == {}
    assert project.lock["files"][sha256(_OTHER)]["safetensors"] is True, "its header was read by range"
    civitai.versions.clear()
    seen.append(project.run("--debug", "push", "oci:out"))
    assert "trying s3://models/night" in seen[1].err
    assert {sha256(_MODEL), sha256(_OTHER)} <= set(project.stored_files())
    seen.append(
        project.run("--debug", "lock", "--update", "day", env={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, check=False)
    )
    assert "s3://models/day.safetensors cannot be reached" in seen[2].err
    nowhere(project, s3.secret, "".join(result.out + result.err for result in seen))


def nowhere(project: Project, secret: str, text: str) -> None:
    """Asserts that a secret is in nothing that was printed, and in no file but those that the user keeps it in."""
    assert secret not in text
    for top in (project.root, project.store, project.store.with_name("another")):
        for path in top.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (", headers: {Authorization: 'Bearer hunter2'}", "holds a secret: write ${NAME}"),
        (", headers: {Range: 'bytes=0-'}", "layerbuild itself decides"),
        (", headers: {'a b': x}", "the name of a header"),
        (", mirrors: ['file:x']", "cannot be a mirror"),
        (", mirrors: ['git+https://host/x@main']", "cannot be a mirror"),
    ],
)
def test_declarations_that_cannot_be(project: Project, more: str, words: str) -> None:
    failed = declare(project, "https://host.invalid/x.safetensors", more).run("lock", check=False).failed(2, words)
    assert "hunter2" not in failed.err


@pytest.mark.parametrize(
    ("source", "more", "words"),
    [
        ("file:x.safetensors", ", mirrors: ['https://host.invalid/x']", "'mirrors' belong to"),
        ("hf://acme/sd/x.safetensors", ", headers: {X-A: x}", "'headers' belong to"),
    ],
)
def test_places_that_do_not_fit_the_source(project: Project, source: str, more: str, words: str) -> None:
    declare(project, source, more).run("lock", check=False).failed(2, words)


@pytest.mark.parametrize("first", ["file", "web"])
def test_what_two_declarations_pin_comes_from_either(project: Project, web: Web, elsewhere: Web, first: str) -> None:
    sources = {"file": "file:night.safetensors", "web": web.route("/n", _MODEL), "other": elsewhere.route("/o", _MODEL)}
    names = [first, *(name for name in sources if name != first)]
    layers = [
        f"l{number}: {{kind: model, type: checkpoint, source: '{sources[name]}', filename: l{number}.safetensors}}\n"
        for number, name in enumerate(names)
    ]
    project.write({"night.safetensors": _MODEL, "layers/all.yaml": "".join(layers)})
    project.write({"recipes/worker.yaml": _RECIPE.replace("[night]", "[l0, l1, l2]")})
    project.run("lock")
    locked = project.lockfile.read_bytes()
    (project.root / "night.safetensors").unlink()
    web.route("/n", Answer(status=404))
    project.store.rename(project.store.with_name("another"))
    project.run("build")
    assert sha256(_MODEL) in project.stored_files()
    elsewhere.route("/o", Answer(status=404))
    project.store.rename(project.store.with_name("yet-another"))
    project.lockfile.write_bytes(locked)
    project.run("build", check=False).failed(1, "cannot be had, and neither can", "/o", "try: ")

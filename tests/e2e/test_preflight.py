"""What would fail is said before anything is fetched, hashed or sent; by `push`, and by `plan --to`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.readers import sha256, tags
from fixtures.authority import Authority, Proxy, keep
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import DockerRegistry, Front, MemoryBlob, TokenFront, make_image
from fixtures.web import Web
from layerbuild import http
from layerbuild.registry.client import RegistryClient

_MODEL = safetensors(BIG, {"a": "b"})
_TAR = "application/vnd.oci.image.layer.v1.tar"
_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
_RECIPE = "webui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"


def _at(registry: Front, prefix: str = "") -> str:
    return f"{registry.host}/{registry.prefix}{prefix}"


def _of_web(web: Web, name: str = "sd", size: int = len(_MODEL)) -> str:
    """A model that only the web has; locked without being asked for."""
    source = web.route("/sd.safetensors", _MODEL)
    return f"{name}: {{kind: model, type: lora, source: '{source}', sha256: {sha256(_MODEL)}, size: {size}}}\n"


def _untouched(project: Project, web: Web) -> None:
    """Asserts that nothing was fetched, and nothing made."""
    assert not web.requests
    assert not project.stored_files() and not project.lock.get("receipts")


def test_no_right_to_push(project: Project, web: Web, token_registry: TokenFront) -> None:
    project.write({"layers/l.yaml": _of_web(web), "recipes/r.yaml": f"name: a\n{_RECIPE}"}).run("lock", "--offline")
    # Anybody may pull there, and gets a token that says so, whatever he asked for.
    there = _at(token_registry, "/public")
    words = (f"the registry {token_registry.host} does not allow us to take an upload", "layerbuild login")
    project.run("push", there, check=False).failed(1, *words)
    project.run("plan", "--to", there, check=False).failed(1, *words)
    plan = project.run("plan", "--to", there, "--json", check=False).failed(1, *words)
    (finding,) = plan.json["findings"]
    assert finding["images"] == ["a"] and "login" in finding["hint"]
    assert token_registry.uploaded() == 0
    _untouched(project, web)


def test_read_only(project: Project, web: Web, readonly_registry: Front) -> None:
    project.write({"layers/l.yaml": _of_web(web), "recipes/r.yaml": f"name: a\n{_RECIPE}"}).run("lock", "--offline")
    project.run("push", _at(readonly_registry), check=False).failed(1, "read-only or in maintenance")
    _untouched(project, web)


def test_one_repository_that_is_not_ours(project: Project, web: Web, registry: Front) -> None:
    layers = _of_web(web) + "x: {kind: files, files: {/opt/x: {content: hi}}}\n"
    layers += "y: {kind: files, files: {/opt/y: {content: ho}}}\n"
    project.write({"layers/l.yaml": layers, "recipes/ours.yaml": "name: ours\nlayers: [x]\ntags: [v1]\n"})
    project.write({"recipes/theirs.yaml": f"name: theirs\n{_RECIPE}".replace("[sd]", "[sd, y]")})
    project.run("lock", "--offline")
    registry.rule("POST", "/theirs/", 403, times=99)
    found = project.run("push", _at(registry), check=False)
    found.failed(1, "1 of 2 images failed", "theirs: the registry", "does not allow us to take an upload")
    assert tags(registry.root, f"{registry.prefix}/ours") == ["v1"]
    assert not web.requests and not [r for r in registry.requests("PUT") if "/theirs/" in r.path]
    # What is known already is refused as well, when it is known what is missing.
    registry.rules.clear()
    project.run("build")
    registry.rule("POST", "/theirs/", 403, times=99)
    before = registry.uploaded()
    project.run("push", _at(registry), check=False).failed(1, "theirs")
    assert registry.uploaded() == before


def test_it_costs_nothing_where_nothing_is_to_be_sent(project: Project, registry: Front) -> None:
    project.write({"layers/l.yaml": "sd: {kind: model, type: lora, source: file:sd.safetensors}\n"})
    project.write({"recipes/r.yaml": f"name: a\n{_RECIPE}", "sd.safetensors": _MODEL}).run("lock")
    project.run("push", _at(registry))
    # What was opened to look is what the first blob goes to.
    assert len(registry.requests("POST")) == len(registry.requests("PUT", "/blobs/"))
    assert registry.requests("DELETE") == []
    before = len(registry.records)
    project.run("push", _at(registry))
    assert [r.method for r in registry.records[before:]] == ["GET"]
    before = len(registry.records)
    project.run("plan", "--to", _at(registry))
    assert {r.method for r in registry.records[before:]} == {"HEAD"}
    # A plan gives back what it opens.
    project.run("plan", "--to", _at(registry, "/elsewhere"))
    assert [len(registry.requests(m, "/elsewhere/")) for m in ("POST", "DELETE")] == [1, 1]


@pytest.fixture
def ghcr(tmp_path: Path, authority: Authority, proxy: Proxy, project: Project) -> Iterator[Project]:
    """A project whose line to ghcr.io ends at a registry here."""
    certificate, key = authority.sign("ghcr.io")
    (tmp_path / "ghcr").mkdir()
    registry = DockerRegistry(tmp_path / "ghcr", tls={"certificate": str(certificate), "key": str(key)})
    proxy.ports["ghcr.io:443"] = registry.port
    keep(project.home / ".config/containers/certs.d/ghcr.io", {"ca.crt": authority.certificate})
    project.environ |= {"HTTPS_PROXY": proxy.url}
    yield project
    registry.close()


def test_layers_that_are_too_large(ghcr: Project, web: Web, proxy: Proxy) -> None:
    layers = _of_web(web, "huge", 11 << 30) + "x: {kind: files, files: {/opt/x: {content: hi}}}\n"
    ghcr.write({"layers/l.yaml": layers, "recipes/small.yaml": "name: small\nlayers: [x]\ntags: [v1]\n"})
    ghcr.write({"recipes/r.yaml": f"name: large\n{_RECIPE}".replace("[sd]", "[huge, x]")}).run("lock", "--offline")
    for command in (["plan", "--to", "ghcr.io/acme"], ["push", "ghcr.io/acme"]):
        found = ghcr.run(*command, check=False)
        found.failed(1, "the registry ghcr.io takes no layer as large as weights huge", "limit there is 10737418240")
    assert "ghcr.io/acme/small:v1" in found.out and "ghcr.io/acme/large" not in found.out
    assert set(proxy.asked) == {"ghcr.io:443"}
    assert not web.requests


def test_a_disk_that_is_too_small(project: Project, web: Web) -> None:
    project.write({"layers/l.yaml": _of_web(web, size=1 << 50), "recipes/r.yaml": f"name: a\n{_RECIPE}"})
    project.run("lock", "--offline")
    for there in ("oci:not/there", "archive:images.tar"):
        for command in (["plan", "--to", there], ["push", there]):
            found = project.run(*command, check=False)
            found.failed(1, f"{there} has no room", "1048576.0 GiB at least", "free some space")
    assert not (project.root / "not").exists() and not (project.root / "images.tar").exists()
    _untouched(project, web)


def _based(project: Project, web: Web, registry: Front, layers: list[tuple[str, bytes]]) -> None:
    """A project of two images: one on a base of those layers, one without a base."""
    client = RegistryClient(registry.host, client=http.Client(), environ={})
    image, repository = make_image(layers), f"{registry.prefix}/base"
    for blob in dict.fromkeys(image.blobs):
        client.upload_blob(repository, MemoryBlob(blob.data), advance=lambda _: None)
    client.put_manifest(repository, "1", image.media_type, image.manifest)
    declared = _of_web(web) + "x: {kind: files, files: {/opt/x: {content: hi}}}\n"
    declared += "y: {kind: files, files: {/opt/y: {content: ho}}}\n"
    project.write({"layers/l.yaml": declared, "recipes/plain.yaml": "name: plain\nlayers: [x]\ntags: [v1]\n"})
    recipe = f"name: above\nbase: {_at(registry)}/base:1\n{_RECIPE}".replace("[sd]", "[sd, y]")
    project.write({"recipes/above.yaml": recipe}).run("lock")
    web.requests.clear()


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([(_TAR, bytes(10240))] * 124, "has 128 layers, its base's included; runtimes stop at 127"),
        ([(_FOREIGN, bytes(10240))], "has a layer of type"),
    ],
)
def test_bases_that_do_not_fit(
    project: Project, web: Web, registry: Front, layers: list[tuple[str, bytes]], words: str
) -> None:
    _based(project, web, registry, layers)
    project.run("plan", check=False).failed(1, "1 of 2 images would fail", words)
    project.run("push", _at(registry), check=False).failed(1, "1 of 2 images failed", "above", words)
    assert tags(registry.root, f"{registry.prefix}/plain") == ["v1"]
    assert not registry.requests("POST", "/above/") and not web.requests


def test_everything_is_said_at_once(project: Project, web: Web, registry: Front) -> None:
    _based(project, web, registry, [(_TAR, bytes(10240))] * 126)
    registry.rule("POST", "/plain/", 403, times=99)
    found = project.run("push", _at(registry), check=False)
    found.failed(1, "2 of 2 images failed", "above", "130 layers", "plain", "does not allow us", "split the recipe")
    assert registry.requests("PUT", "/(above|plain)/") == []


def test_archives_and_zstd(project: Project) -> None:
    project.write({"layers/l.yaml": "x: {kind: files, files: {/opt/x: {content: hi}}}\n"})
    recipe = "name: a\nlayers: [x]\ntags: [v1]\n"
    project.write({"recipes/r.yaml": recipe}).run("lock")
    words = "Docker before 23 cannot read layers that are compressed with zstd"
    assert words in project.run("push", "archive:images.tar").err
    plan = project.run("plan", "--to", "archive:images.tar")
    assert f"note: {words}" in plan.out
    assert words not in project.run("push", "oci:images").err
    project.write({"recipes/r.yaml": recipe + "compression: gzip\n"}).run("lock")
    assert words not in project.run("push", "archive:images.tar").err
    assert project.run("plan", "--to", "archive:images.tar", "--json").json["notes"] == []

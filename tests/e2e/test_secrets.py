"""No secret reaches the lock, an image, standard output or error at their most talkative, or the store."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from fixtures.civitai import Civitai
from fixtures.hub import Hub
from fixtures.project import BIG, Project, Result, safetensors
from fixtures.registry import IDENTITY_TOKEN, PASSWORD, USER, Front, TokenFront, docker_config
from fixtures.s3 import S3
from fixtures.web import Answer, Asked, Web

_MODEL = safetensors(BIG, {"a": "b"}, seed=1)
_SIGNATURE = "a-signature-that-must-never-be-seen"
_WRONG = "a-wrong-password-of-alice"
_PROXY = "the-proxy-s-password"
_NETRC = "the-password-in-netrc"
_IN_URL = "a-password-in-an-address"
_HELPER = "what-the-helper-knows"
_VARIABLE = "what-a-variable-holds"
_STRANGE = "a-cookie-that-a-server-set"
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd, clip]\ntags: [v1]\n"
_LAYERS = """
sd: {kind: model, type: checkpoint, source: hf://acme/sd@main/sd.safetensors}
clip: {kind: huggingface, source: hf://acme/sd@main, files: [config.json]}
"""


class Watched:
    """A project whose every run is kept, at the highest verbosity and as a user runs it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.said: list[str] = []

    def run(self, *arguments: str, code: int = 0, env: dict[str, str] | None = None) -> Result:
        """Runs layerbuild with `--verbose`; a failing command also with `--debug`."""
        result = self.project.run("-v", *arguments, check=False, env=env)
        assert result.code == code, result
        self.said += [result.out, result.err]
        if code:
            debug = self.project.run("-v", "--debug", *arguments, check=False, env=env)
            assert debug.code and "Traceback" in debug.err
            self.said += [debug.out, debug.err]
        return result

    def places(self) -> Iterator[tuple[str, bytes]]:
        """Everything that was said and written."""
        for number, text in enumerate(self.said):
            yield f"output {number}", text.encode()
        for root in (self.project.root, self.project.store):
            for path in root.rglob("*"):
                # The addresses of uploads that can be gone on with are there, for their owner alone.
                if path.is_file() and path.parent.name != "uploads":
                    yield str(path), _unpacked(path.read_bytes())
                elif path.is_file():
                    assert path.stat().st_mode & 0o777 == 0o600


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(b"\x28\xb5\x2f\xfd"):
        return data
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _leaks(places: Iterator[tuple[str, bytes]], secrets: list[str]) -> list[tuple[str, str]]:
    wanted = {s: s.encode() for s in secrets}
    wanted |= {f"base64 of {s}": base64.b64encode(f"{USER}:{s}".encode()).rstrip(b"=") for s in secrets}
    return [(where, name) for where, data in places for name, secret in wanted.items() if secret in data]


@pytest.fixture
def watched(project: Project, hub: Hub) -> Watched:
    hub.add("acme/sd", files={"config.json": b"{}"}, lfs={"sd.safetensors": _MODEL}, private=True)
    project.environ |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HTTPS_PROXY": f"http://someone:{_PROXY}@127.0.0.1:9",
    }
    (project.home / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {_NETRC}\n")
    (project.home / ".netrc").chmod(0o600)
    project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE})
    return Watched(project)


def _identity(directory: Path, host: str) -> dict[str, str]:
    directory.mkdir()
    auth = base64.b64encode(f"{USER}:".encode()).decode()
    entry = {"auth": auth, "identitytoken": IDENTITY_TOKEN}
    (directory / "config.json").write_text(json.dumps({"auths": {host: entry}}))
    return {"DOCKER_CONFIG": str(directory)}


def test_a_project_s_whole_life(
    watched: Watched, hub: Hub, token_registry: TokenFront, login_registry: Front, tmp_path: Path
) -> None:
    watched.run("lock")
    at, basic = (f"{front.host}/{front.prefix}" for front in (token_registry, login_registry))
    watched.run("plan", "--to", at, env=docker_config(tmp_path / "one", token_registry.host))
    watched.run("push", at, env=docker_config(tmp_path / "one", token_registry.host))
    watched.run("push", f"{at}/again", env=_identity(tmp_path / "two", token_registry.host))
    watched.run("push", basic, env=docker_config(tmp_path / "three", login_registry.host))
    watched.run("push", "oci:out")
    watched.run("verify", "--deep", f"{basic}/worker:v1", env=docker_config(tmp_path / "three", login_registry.host))
    audit = watched.project.run(
        "-v", "audit", f"{at}/worker:v1", check=False, env=docker_config(tmp_path / "one", token_registry.host)
    )
    assert audit.code in (0, 4), audit
    watched.said += [audit.out, audit.err]
    bearers = list(token_registry.tokens)
    secrets = [hub.token, _SIGNATURE, PASSWORD, IDENTITY_TOKEN, _PROXY, _NETRC, *bearers]
    # They were used: a test that looks for what was never there would find nothing either.
    assert any(r.headers.get("authorization") == f"Bearer {hub.token}" for r in hub.requests) and bearers
    assert any(_SIGNATURE in r.query for r in hub.cdn_requests)
    assert not any("authorization" in r.headers for r in hub.cdn_requests)
    assert "GET" in watched.said[1] and "/lfs/" in watched.said[1]
    assert _leaks(watched.places(), secrets) == []


def _declares(source: str) -> dict[str, str]:
    return {"layers/l.yaml": f"sd: {{kind: model, type: vae, source: '{source}'}}\nclip: {_LAYERS.split('clip: ')[1]}"}


def test_what_fails_tells_nothing_either(
    watched: Watched, hub: Hub, web: Web, token_registry: TokenFront, login_registry: Front, tmp_path: Path
) -> None:
    project, host = watched.project, login_registry.host
    project.run("lock")
    # A wrong login, and a token server that repeats what it was told.
    watched.run(
        "push", f"{host}/{login_registry.prefix}", code=1, env=docker_config(tmp_path / "a", host, password=_WRONG)
    )
    other = token_registry.host
    wrong = docker_config(tmp_path / "b", other, password=_WRONG)
    watched.run("push", f"{other}/{token_registry.prefix}", code=1, env=wrong)
    helper = tmp_path / "bin" / "docker-credential-tests"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\necho {_HELPER}; echo {_HELPER} >&2; exit 1\n")
    helper.chmod(0o755)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/config.json").write_text(json.dumps({"credHelpers": {host: "tests"}}))
    environ = {"DOCKER_CONFIG": str(tmp_path / "c"), "PATH": f"{helper.parent}:{project.environ['PATH']}"}
    watched.run("push", f"{host}/{login_registry.prefix}", code=1, env=environ)
    # A server that refuses, and tells a browser's cookie.
    open_ = docker_config(tmp_path / "d", other)
    cookie = {"Set-Cookie": f"session={_STRANGE}"}
    token_registry.rule("PUT", "/manifests/", status=400, headers=cookie, body=b"no", times=99)
    watched.run("push", f"{other}/{token_registry.prefix}", code=1, env=open_)
    # Sources: no token, a broken mirror, addresses that hold what they should not.
    fresh = {"LAYERBUILD_STORE": str(tmp_path / "fresh")}
    watched.run("lock", "--update-all", code=1, env={"HF_TOKEN": "hf_" + _WRONG})
    hub.script("/api/models/acme/sd/revision/main", Answer(body=b"[" * 100))
    watched.run("lock", "--update-all", code=1)
    signed = f"{web.url}/moved?sig={_SIGNATURE}"
    web.route("/model", Answer(status=302, headers={"Location": signed, "Set-Cookie": f"a={_STRANGE}"}))
    web.route("/moved", Answer(status=403))
    sources = (
        f"https://user:{_IN_URL}@hub.example/x.safetensors",
        f"https://hub.example/x.safetensors?token={_IN_URL}",
        f"git+https://user:{_IN_URL}@git.example/x@main",
        f"{web.url}/model",
    )
    for source in sources:
        project.write(_declares(source))
        watched.run("lock", code=1, env=fresh)
    # Once, because it is tried again and again: a proxy that is not there.
    project.write(_declares("https://hub.example/x.safetensors"))
    lost = project.run("-v", "lock", check=False, env=fresh).failed(1, "hub.example")
    watched.said += [lost.out, lost.err]
    (project.root / "layers/l.yaml").unlink()
    secrets = [
        _WRONG,
        _HELPER,
        _STRANGE,
        _SIGNATURE,
        _IN_URL,
        _PROXY,
        _NETRC,
        PASSWORD,
        hub.token,
        *token_registry.tokens,
    ]
    assert _leaks(watched.places(), secrets) == []


def test_sources_that_ask_for_a_login(watched: Watched, civitai: Civitai, s3: S3, web: Web, elsewhere: Web) -> None:
    project = watched.project
    civitai.add(7, {"night.safetensors": _MODEL}, login="401")
    s3.bucket("models")
    s3.put("models", "paint.safetensors", safetensors(100, seed=3), sha256=True)
    for place, path, seed in ((web, "/ink", 4), (elsewhere, "/net", 5)):
        data = safetensors(100, seed=seed)
        place.handle(path, lambda asked, data=data: Answer(body=data) if _knows(asked) else Answer(status=401))
    layers = {
        "night": {"source": "civitai://7"},
        "paint": {"source": "s3://models/paint.safetensors"},
        "ink": {"source": f"{web.url}/ink", "headers": {"Authorization": "Bearer ${MY_TOKEN}"}},
        "net": {"source": f"{elsewhere.url}/net"},
    }
    for name, layer in layers.items():
        layer |= {"kind": "model", "type": "checkpoint", "filename": f"{name}.safetensors"}  # type: ignore[dict-item]
    recipe = "name: worker\nwebui: {root: /webui}\nlayers: [night, paint, ink, net]\ntags: [v1]\n"
    project.write({"layers/l.yaml": json.dumps(layers), "recipes/r.yaml": recipe})
    environ = {**s3.environ, "CIVITAI_ENDPOINT": civitai.endpoint, "MY_TOKEN": _VARIABLE}
    watched.run("lock", code=1, env={**environ, "CIVITAI_TOKEN": _WRONG, "MY_TOKEN": _WRONG})
    environ["CIVITAI_TOKEN"] = civitai.token
    watched.run("lock", env=environ)
    watched.run("push", "oci:out", env=environ)
    watched.run("lock", "--update-all", code=1, env={**environ, "MY_TOKEN": _WRONG})
    used = [r.headers.get("authorization", "") for r in (*web.requests, *elsewhere.requests)]
    assert f"Bearer {_VARIABLE}" in used and any(u.startswith("Basic ") for u in used)
    assert "${MY_TOKEN}" in project.lockfile.read_text()
    secrets = [civitai.token, civitai.signature, s3.secret, _VARIABLE, _NETRC, _WRONG, _PROXY]
    assert _leaks(watched.places(), secrets) == []


def _knows(asked: Asked) -> bool:
    login = base64.b64encode(f"{USER}:{_NETRC}".encode()).decode()
    return asked.headers.get("authorization") in (f"Bearer {_VARIABLE}", f"Basic {login}")


def test_login_command(watched: Watched, login_registry: Front) -> None:
    for password in (PASSWORD, _WRONG):
        done = subprocess.run(
            [sys.executable, "-m", "layerbuild", "-v", "login", login_registry.host, "-u", USER, "--password-stdin"],
            cwd=watched.project.root,
            env=watched.project.environ,
            input=password.encode(),
            capture_output=True,
            check=False,
        )
        watched.said += [done.stdout.decode(), done.stderr.decode()]
    assert _leaks(watched.places(), [PASSWORD, _WRONG, _NETRC]) == []

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from layerbuild.errors import LayerbuildError
from layerbuild.registry.credentials import Credential, Secret, find_credential
from layerbuild.registry.logins import forget, keep

HOST = "registry.example.com"
HUB = "https://index.docker.io/v1/"
SECRET = "hunter2 and more"

_HELPER = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
case "$1" in
store) cat >stored ;;
erase) cat >erased; test -e stored || { echo "credentials not found in native keychain"; exit 1; }; rm stored ;;
get) cat stored 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
esac
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home without logins, and a directory for helpers on its path."""
    (tmp_path / "bin").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def config_path(environ: dict[str, str]) -> Path:
    return Path(environ["HOME"]) / ".docker" / "config.json"


def config(environ: dict[str, str]) -> Any:
    return json.loads(config_path(environ).read_bytes())


def write(environ: dict[str, str], value: Any) -> Path:
    path = config_path(environ)
    path.parent.mkdir(parents=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def helper(tmp_path: Path, name: str, script: str = _HELPER) -> Path:
    program = tmp_path / "bin" / f"docker-credential-{name}"
    program.write_text(script)
    program.chmod(0o755)
    return program.parent


def encoded(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.mark.parametrize(("host", "key"), [(HOST, HOST), ("docker.io", HUB), ("127.0.0.1:5000", "127.0.0.1:5000")])
def test_a_login_that_is_kept_is_found(environ: dict[str, str], host: str, key: str) -> None:
    old = os.umask(0)
    try:
        place = keep(host, "alice", Secret(SECRET), environ)
    finally:
        os.umask(old)
    assert (place.name, place.plain) == (str(config_path(environ)), True)
    assert config(environ) == {"auths": {key: {"auth": encoded("alice", SECRET)}}}
    assert config_path(environ).stat().st_mode & 0o777 == 0o600
    assert config_path(environ).parent.stat().st_mode & 0o777 == 0o700
    assert find_credential(host, environ).credential == Credential(username="alice", password=Secret(SECRET))
    assert forget(host, environ)
    assert config(environ) == {"auths": {}}
    assert not forget(host, environ)


def test_docker_config_says_where(environ: dict[str, str], tmp_path: Path) -> None:
    environ["DOCKER_CONFIG"] = str(tmp_path / "elsewhere")
    keep(HOST, "alice", Secret(SECRET), environ)
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["config.json"]
    assert not config_path(environ).exists()


def test_the_rest_of_the_file_stays(environ: dict[str, str]) -> None:
    other = {"auth": encoded("bob", "x")}
    before = {"psFormat": "täble", "auths": {"other.example.com": other}, "experimental": "enabled"}
    path = write(environ, before)
    path.chmod(0o644)
    keep(HOST, "alice", Secret(SECRET), environ)
    both = {"other.example.com": other, HOST: {"auth": encoded("alice", SECRET)}}
    assert config(environ) == {**before, "auths": both}
    assert list(config(environ)) == list(before)
    assert path.stat().st_mode & 0o777 == 0o600
    forget(HOST, environ)
    assert config(environ) == before


def test_another_spelling_of_the_host_is_replaced(environ: dict[str, str]) -> None:
    write(environ, {"auths": {f"https://{HOST}/v1/": {"auth": encoded("bob", "x")}}})
    keep(HOST, "alice", Secret(SECRET), environ)
    assert config(environ) == {"auths": {HOST: {"auth": encoded("alice", SECRET)}}}


def test_a_link_stays_one(environ: dict[str, str], tmp_path: Path) -> None:
    path = write(environ, {})
    path.rename(tmp_path / "real.json")
    path.symlink_to(tmp_path / "real.json")
    keep(HOST, "alice", Secret(SECRET), environ)
    assert path.is_symlink()
    assert HOST in json.loads((tmp_path / "real.json").read_bytes())["auths"]


@pytest.mark.parametrize("named", [{"credsStore": "chest"}, {"credHelpers": {HOST: "chest"}}], ids=str)
def test_a_helper_keeps_it(environ: dict[str, str], tmp_path: Path, named: dict[str, Any]) -> None:
    directory = helper(tmp_path, "chest")
    write(environ, {**named, "auths": {HOST: {"auth": encoded("bob", "x")}}})
    place = keep(HOST, "alice", Secret(SECRET), environ)
    assert (place.name, place.plain) == ("docker-credential-chest", False)
    stored = json.loads((directory / "stored").read_bytes())
    assert stored == {"ServerURL": HOST, "Username": "alice", "Secret": SECRET}
    assert config(environ) == {**named, "auths": {HOST: {}}}
    assert find_credential(HOST, environ).credential == Credential(username="alice", password=Secret(SECRET))
    assert forget(HOST, environ)
    assert (directory / "erased").read_text() == HOST
    assert config(environ) == {**named, "auths": {}}
    assert not forget(HOST, environ), "that the helper has nothing is no failure"
    assert find_credential(HOST, environ).credential is None


@pytest.mark.parametrize("script", ["#!/bin/sh\ncat; exit 3\n", "#!/bin/sh\ncat; echo not found; exit 1\n", None])
def test_a_helper_that_fails_keeps_nothing(environ: dict[str, str], tmp_path: Path, script: str | None) -> None:
    if script is not None:
        helper(tmp_path, "chest", script)
    before = write(environ, {"credsStore": "chest"}).read_bytes()
    with pytest.raises(LayerbuildError, match="cannot be kept") as caught:
        keep(HOST, "alice", Secret(SECRET), environ)
    assert "docker-credential-chest" in (caught.value.cause or "")
    assert SECRET not in str(caught.value)
    assert config_path(environ).read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[1]", '{"auths": 3}', "[" * 100_000])
def test_a_damaged_file_is_left_alone(environ: dict[str, str], content: str) -> None:
    path = write(environ, content)
    for work in (lambda: keep(HOST, "alice", Secret(SECRET), environ), lambda: forget(HOST, environ)):
        with pytest.raises(LayerbuildError, match="cannot be used") as caught:
            work()
        assert caught.value.cause and caught.value.hint
    assert path.read_text() == content
    assert [p.name for p in path.parent.iterdir()] == ["config.json"]


def test_a_place_that_cannot_be_written(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LayerbuildError, match="cannot be written"):
        keep(HOST, "alice", Secret(SECRET), {**environ, "DOCKER_CONFIG": str(tmp_path / "file" / "below")})
    with pytest.raises(LayerbuildError, match="no place"):
        keep(HOST, "alice", Secret(SECRET), {})


def test_processes_that_log_in_at_the_same_time(environ: dict[str, str]) -> None:
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from layerbuild.registry.credentials import Secret
from layerbuild.registry.logins import keep
for number in range(10):
    keep(f"h{{sys.argv[1]}}.example.com:{{number}}", "alice", Secret("x"), os.environ)
"""
    running = [subprocess.Popen([sys.executable, "-c", script, str(n)], env=environ) for n in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(config(environ)["auths"]) == 30

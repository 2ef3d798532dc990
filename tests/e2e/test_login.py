"""`layerbuild login` and `logout`, with real registries."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.project import Project, Result
from fixtures.registry import PASSWORD, USER, Front, TokenFront

_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.fixture
def outside(project: Project, tmp_path: Path) -> Project:
    """A place without a project: none is needed."""
    (project.root / "recipes").rmdir()
    return project


def _login(project: Project, *arguments: str, password: str = PASSWORD) -> Result:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "layerbuild", "login", *arguments],
        cwd=project.root,
        env=project.environ,
        input=f"{password}\n".encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert password not in (done.stdout + done.stderr).decode()
    return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def _config(project: Project) -> Path:
    return project.home / ".docker" / "config.json"


def _auth(password: str = PASSWORD) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}


@pytest.mark.parametrize("front", ["login_registry", "token_registry"])
def test_login_is_checked_and_kept(outside: Project, front: str, request: pytest.FixtureRequest) -> None:
    registry: Front = request.getfixturevalue(front)
    wrong = _login(outside, registry.host, "-u", USER, "--password-stdin", password="a-wrong-secret")
    wrong.failed(1, f"does not let {USER} in", "401", "check the name and the password")
    assert not _config(outside).exists()
    done = _login(outside, registry.host, "--username", USER, "--password-stdin")
    assert done.code == 0 and done.out.startswith(f"logged in to {registry.host} as {USER}"), done
    assert json.loads(_config(outside).read_bytes()) == {"auths": {registry.host: _auth()}}
    # what is kept is used
    outside.write({"layers/l.yaml": "x: {kind: files, files: {/opt/x: {content: hi}}}\n"})
    outside.write({"recipes/r.yaml": "name: small\nlayers: [x]\ntags: [v1]\n"}).run("lock")
    outside.run("push", f"{registry.host}/{registry.prefix}")
    assert outside.run("logout", registry.host).out == f"logged out of {registry.host}\n"
    assert json.loads(_config(outside).read_bytes()) == {"auths": {}}
    outside.run("push", f"{registry.host}/{registry.prefix}", check=False).failed(
        1, f"layerbuild login {registry.host}"
    )
    assert outside.run("logout", registry.host).out == f"no login for {registry.host} was kept\n"


def test_registry_that_lets_anybody_in(outside: Project, registry: Front) -> None:
    done = _login(outside, registry.host, "-u", USER, "--password-stdin")
    assert done.code == 0 and "lets anybody in" in done.err
    assert json.loads(_config(outside).read_bytes()) == {"auths": {registry.host: _auth()}}


def test_password_is_asked_for_and_not_shown(outside: Project, token_registry: TokenFront) -> None:
    command = [sys.executable, "-m", "layerbuild", "login", token_registry.host]
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-c", _TERMINAL, *command],
        cwd=outside.root,
        env=outside.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for prompt, answer in ((b"Username: ", USER), (b"Password: ", PASSWORD)):
            # by then the terminal shows nothing any more of what is typed
            while not shown.endswith(prompt):
                piece = os.read(process.stdout.fileno(), 1)
                assert piece, shown
                shown += piece
            os.write(process.stdin.fileno(), f"{answer}\n".encode())
        shown += process.stdout.read()
    assert process.returncode == 0, shown
    assert USER.encode() in shown and PASSWORD.encode() not in shown
    assert json.loads(_config(outside).read_bytes()) == {"auths": {token_registry.host: _auth()}}


def test_login_of_podman_is_left_alone(outside: Project, registry: Front, tmp_path: Path) -> None:
    podman = tmp_path / "auth.json"
    podman.write_text(json.dumps({"auths": {registry.host: _auth()}}))
    done = outside.run("logout", registry.host, env={"REGISTRY_AUTH_FILE": str(podman)})
    assert f"podman logout {registry.host}" in done.err
    assert registry.host in podman.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["https://ghcr.io"], "is not a registry"),
        (["ghcr.io/acme"], "is not a registry"),
        (["acme"], "is not a registry"),
        (["ghcr.io", "--password-stdin"], "needs --username"),
        (["ghcr.io", "--username", USER], "--password-stdin"),
        (["ghcr.io", "--username", "a:b", "--password-stdin"], "cannot be a name"),
        (["ghcr.io", "--username", "", "--password-stdin"], "cannot be a name"),
    ],
    ids=str,
)
def test_what_cannot_be_carried_out(outside: Project, arguments: list[str], words: str) -> None:
    _login(outside, *arguments).failed(2, words)
    assert not _config(outside).exists()


def test_no_password(outside: Project, registry: Front) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "layerbuild", "login", registry.host, "-u", USER, "--password-stdin"],
        cwd=outside.root,
        env=outside.environ,
        input=b"\n",
        capture_output=True,
        check=False,
    )
    assert found.returncode == 2 and b"there is no password" in found.stderr
    assert registry.records == []


def test_registry_that_is_down(outside: Project) -> None:
    _login(outside, "127.0.0.1:9", "-u", USER, "--password-stdin").failed(1, "cannot be reached")
    assert not _config(outside).exists()

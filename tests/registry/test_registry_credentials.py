from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from layerbuild.registry.credentials import Credential, Secret, find_credential

HOST = "registry.example.com"
HUB = "https://index.docker.io/v1/"


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def write(path: Path, config: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def login(username: str, password: str) -> Credential:
    return Credential(username=username, password=Secret(password))


def helper(directory: Path, name: str, script: str) -> str:
    """A credential helper; returns the PATH that finds it."""
    directory.mkdir(exist_ok=True)
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


def test_files_are_tried_in_the_order_of_the_documentation(tmp_path: Path) -> None:
    environ = {
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "HOME": str(tmp_path / "home"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "podman.json"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    places = [
        (tmp_path / "docker" / "config.json", "DOCKER_CONFIG"),
        (tmp_path / "home" / ".docker" / "config.json", "HOME"),
        (tmp_path / "podman.json", "REGISTRY_AUTH_FILE"),
        (tmp_path / "run" / "containers" / "auth.json", "XDG_RUNTIME_DIR"),
    ]
    for path, user in places:
        write(path, {"auths": {HOST: auth(user, "x")}})
    for _, user in places:
        found = find_credential(HOST, environ).credential
        assert found == login(user, "x")
        del environ[user]
    assert find_credential(HOST, environ).credential is None


def test_home_is_not_read_where_docker_config_is_set(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".docker" / "config.json", {"auths": {HOST: auth("home", "x")}})
    environ = {"DOCKER_CONFIG": str(tmp_path / "none"), "HOME": str(tmp_path / "home")}
    assert find_credential(HOST, environ).credential is None


def test_a_file_without_the_host_leaves_the_word_to_the_next(tmp_path: Path) -> None:
    write(tmp_path / "docker" / "config.json", {"auths": {"other.example.com": auth("no", "x"), HOST: {}}})
    podman = write(tmp_path / "auth.json", {"auths": {HOST: auth("yes", "x")}})
    environ = {"DOCKER_CONFIG": str(tmp_path / "docker"), "REGISTRY_AUTH_FILE": str(podman)}
    assert find_credential(HOST, environ).credential == login("yes", "x")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("alice", "pass:word"), login("alice", "pass:word")),
        ({"username": "alice", "password": "secret"}, login("alice", "secret")),
        ({**auth("00000000", ""), "identitytoken": "it"}, Credential(username="00000000", identity_token=Secret("it"))),
        ({"identitytoken": "it"}, Credential(identity_token=Secret("it"))),
        ({"email": "alice@example.com"}, None),
        ({"auth": 7}, None),
        ("alice", None),
    ],
)
def test_entries_of_every_form(tmp_path: Path, entry: Any, expected: Credential | None) -> None:
    write(tmp_path / "config.json", {"auths": {HOST: entry}})
    assert find_credential(HOST, {"DOCKER_CONFIG": str(tmp_path)}).credential == expected


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v2/", f"http://{HOST}/v1/"])
def test_keys_may_be_addresses(tmp_path: Path, key: str) -> None:
    write(tmp_path / "config.json", {"auths": {key: auth("alice", "x")}})
    assert find_credential(HOST, {"DOCKER_CONFIG": str(tmp_path)}).credential == login("alice", "x")


@pytest.mark.parametrize("key", [HUB, "index.docker.io", "docker.io"])
def test_docker_hub_has_a_key_of_its_own(tmp_path: Path, key: str) -> None:
    write(tmp_path / "config.json", {"auths": {key: auth("alice", "x")}})
    assert find_credential("docker.io", {"DOCKER_CONFIG": str(tmp_path)}).credential == login("alice", "x")
    assert find_credential(HOST, {"DOCKER_CONFIG": str(tmp_path)}).credential is None


def test_a_helper_for_the_host_comes_before_the_store_and_that_before_the_file(tmp_path: Path) -> None:
    say = """read -r key; printf '{"Username":"%s","Secret":"%s"}'"""
    path = helper(tmp_path / "bin", "host", f'{say} by-host "$key"')
    helper(tmp_path / "bin", "store", f'{say} by-store "$key"')
    config: dict[str, Any] = {
        "auths": {HOST: auth("by-file", "x")},
        "credsStore": "store",
        "credHelpers": {HOST: "host"},
    }
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": path}
    for expected, gone in ((login("by-host", HOST), "credHelpers"), (login("by-store", HOST), "credsStore")):
        write(tmp_path / "config.json", config)
        assert find_credential(HOST, environ).credential == expected
        del config[gone]
    write(tmp_path / "config.json", config)
    assert find_credential(HOST, environ).credential == login("by-file", "x")


def test_the_store_is_asked_for_docker_hub_by_its_key(tmp_path: Path) -> None:
    path = helper(tmp_path / "bin", "s", """read -r key; printf '{"Username":"u","Secret":"%s"}' "$key" """)
    write(tmp_path / "config.json", {"credsStore": "s"})
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": path}
    assert find_credential("docker.io", environ).credential == login("u", HUB)


def test_a_helper_may_give_an_identity_token(tmp_path: Path) -> None:
    path = helper(tmp_path / "bin", "s", """printf '{"Username":"<token>","Secret":"it"}'""")
    write(tmp_path / "config.json", {"credsStore": "s"})
    found = find_credential(HOST, {"DOCKER_CONFIG": str(tmp_path), "PATH": path})
    assert found.credential == Credential(identity_token=Secret("it"))


def test_a_helper_that_has_nothing_is_no_problem(tmp_path: Path) -> None:
    path = helper(tmp_path / "bin", "s", "echo credentials not found in native keychain; exit 1")
    write(tmp_path / "config.json", {"credsStore": "s"})
    found = find_credential(HOST, {"DOCKER_CONFIG": str(tmp_path), "PATH": path})
    assert found.credential is None
    assert found.problems == ()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"credsStore": "missing"}, "docker-credential-missing is not installed"),
        ({"credsStore": "broken"}, "docker-credential-broken failed (exit code 3)"),
        ({"credsStore": "chatty"}, "docker-credential-chatty failed"),
        ({"credsStore": "../../bin/sh"}, "makes no sense"),
        ({"auths": {HOST: {"auth": "hunter2 is not base64"}}}, "not base64"),
        (["hunter2"], "not a JSON object"),
    ],
)
def test_what_stands_in_the_way_is_told_without_secrets(tmp_path: Path, config: Any, problem: str) -> None:
    path = helper(tmp_path / "bin", "broken", "echo hunter2; exit 3")
    helper(tmp_path / "bin", "chatty", "echo hunter2")
    write(tmp_path / "config.json", config)
    found = find_credential(HOST, {"DOCKER_CONFIG": str(tmp_path), "PATH": path})
    assert found.credential is None
    assert problem in " ".join(found.problems)
    assert "hunter2" not in " ".join(found.problems)


def test_a_damaged_file_is_told_without_its_contents(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auths": {"x": {"auth": "hunter2"')
    found = find_credential(HOST, {"DOCKER_CONFIG": str(tmp_path)})
    assert found.credential is None
    assert "hunter2" not in found.problems[0]


def test_secrets_show_nowhere() -> None:
    credential = login("alice", "hunter2")
    assert "hunter2" not in f"{credential!r} {credential} {credential.password} {credential.password!r:>30}"
    assert hash(Secret("a")) == hash(Secret("a"))

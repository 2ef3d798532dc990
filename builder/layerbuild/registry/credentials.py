"""Finding what Docker, podman and their helpers know of a registry's login.

Files are tried in this order, and the first that has something for the host wins:
`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; then podman's `$REGISTRY_AUTH_FILE`, else
`$XDG_RUNTIME_DIR/containers/auth.json`. Within one: `credHelpers`, `credsStore`, `auths`, as the
docker command does it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbuild.registry.reference import DOCKER_HUB, api_host

_HUB_KEY = "https://index.docker.io/v1/"
_LARGEST_CONFIG = 4 * 1024 * 1024
_HELPER_SECONDS = 60
_TOKEN_USER = "<token>"  # noqa: S105  # what helpers write in place of a name before an identity token


class Secret:
    """A text that is shown nowhere by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself. For the wire only."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A login. Either a name and a password, or an identity token (OAuth2 refresh token)."""

    username: str = ""
    password: Secret | None = None
    identity_token: Secret | None = None


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """What was found for a host, and what stood in the way, for the message when a login fails."""

    credential: Credential | None = None
    problems: tuple[str, ...] = ()


def find_credential(host: str, environ: Mapping[str, str]) -> Lookup:
    """Looks for a login for `host`. Never raises: a public image needs none, whatever is broken here.

    Args:
        host: as in `Reference.host`; `docker.io` for Docker Hub.
        environ: the environment: DOCKER_CONFIG, HOME, REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR, PATH.
    """
    problems: list[str] = []
    for path in _config_files(environ):
        config = read_config(path, problems)
        if config is None:
            continue
        credential = _in_config(config, host, environ, problems)
        if credential is not None:
            return Lookup(credential=credential, problems=tuple(problems))
    return Lookup(problems=tuple(problems))


def docker_config(environ: Mapping[str, str]) -> Path | None:
    """Docker's own file, where the environment says where that would be."""
    if environ.get("DOCKER_CONFIG"):
        return Path(environ["DOCKER_CONFIG"]) / "config.json"
    return Path(environ["HOME"]) / ".docker" / "config.json" if environ.get("HOME") else None


def _config_files(environ: Mapping[str, str]) -> Iterator[Path]:
    docker = docker_config(environ)
    if docker is not None:
        yield docker
    if environ.get("REGISTRY_AUTH_FILE"):
        yield Path(environ["REGISTRY_AUTH_FILE"])
    elif environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"


def read_config(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """What a file of logins holds; None if it is not there, or damaged, which is added to `problems`."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_CONFIG + 1)
        if len(data) > _LARGEST_CONFIG:
            raise ValueError
        config = json.loads(data)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return None
    except (ValueError, RecursionError):
        # the parser's own words may quote what it could not read
        config = None
    if not isinstance(config, dict):
        problems.append(f"{path.name} in {path.parent.name} is not a JSON object")
        return None
    return config


def keys_for(host: str) -> list[str]:
    """The names that a config may have for `host`, the usual one first."""
    names = [_HUB_KEY, "index.docker.io", DOCKER_HUB, api_host(host)] if host == DOCKER_HUB else [host]
    return [*names, *(f"{scheme}://{host}{path}" for scheme in ("https", "http") for path in ("", "/", "/v1/", "/v2/"))]


def _table(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def helper_for(config: Mapping[str, Any], host: str) -> tuple[object, str] | None:
    """The credential helper that keeps the login of `host`, as the config names it, and its name for the host."""
    keys = keys_for(host)
    helpers = _table(config, "credHelpers")
    asked = next(((helpers[key], key) for key in [host, *keys] if key in helpers), None)
    if asked is None and config.get("credsStore"):
        return config["credsStore"], keys[0]
    return asked


def _in_config(
    config: Mapping[str, Any], host: str, environ: Mapping[str, str], problems: list[str]
) -> Credential | None:
    asked = helper_for(config, host)
    if asked is not None:
        credential = _from_helper(*asked, environ, problems)
        if credential is not None:
            return credential
    auths = _table(config, "auths")
    for key in keys_for(host):
        if isinstance(auths.get(key), dict):
            credential = _from_entry(auths[key], key, problems)
            if credential is not None:
                return credential
    return None


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _from_entry(entry: Mapping[str, Any], key: str, problems: list[str]) -> Credential | None:
    username, password = _text(entry, "username"), _text(entry, "password")
    if auth := _text(entry, "auth"):
        try:
            decoded = base64.b64decode(auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            problems.append(f"the entry for {key} has an 'auth' that is not base64")
            return None
        username, _, password = decoded.partition(":")
        password = password.rstrip("\0")
    if token := _text(entry, "identitytoken"):
        return Credential(username=username, identity_token=Secret(token))
    if username and password:
        return Credential(username=username, password=Secret(password))
    return None


def call_helper(
    helper: object, action: str, data: bytes, environ: Mapping[str, str], problems: list[str]
) -> subprocess.CompletedProcess[bytes] | None:
    """Runs a credential helper (docker-credential-helpers, "Development"); None if it cannot be run, which is
    added to `problems`.

    Args:
        helper: as a config names it.
        action: `get`, `store` or `erase`.
        data: for its standard input.
    """
    if not isinstance(helper, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", helper):
        problems.append("the name of a credential helper makes no sense")
        return None
    name = f"docker-credential-{helper}"
    program = shutil.which(name, path=environ.get("PATH"))
    if program is None:
        problems.append(f"the credential helper {name} is not installed")
        return None
    try:
        done = subprocess.run(
            [program, action],
            check=False,
            input=data,
            capture_output=True,
            timeout=_HELPER_SECONDS,
            env=dict(environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        problems.append(f"the credential helper {name} failed")
        return None
    # by the helpers' protocol, that it has nothing is a failure too, told on its standard output
    if done.returncode and b"not found" not in done.stdout.lower():
        problems.append(f"the credential helper {name} failed (exit code {done.returncode})")
        return None
    return done


def _from_helper(helper: object, key: str, environ: Mapping[str, str], problems: list[str]) -> Credential | None:
    done = call_helper(helper, "get", key.encode(), environ, problems)
    if done is None or done.returncode:
        return None
    try:
        answer = json.loads(done.stdout)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        problems.append(f"the credential helper docker-credential-{helper} failed: its answer makes no sense")
        return None
    username, secret = _text(answer, "Username"), _text(answer, "Secret")
    if username == _TOKEN_USER and secret:
        return Credential(identity_token=Secret(secret))
    return Credential(username=username, password=Secret(secret)) if username and secret else None

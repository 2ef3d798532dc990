"""Keeping logins where Docker keeps them: in its config file, or with the credential helper that the file names.

So that other tools find them, and `credentials.find_credential` does. All else in the file is left as it is.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerbuild.errors import LayerbuildError
from layerbuild.registry.credentials import Secret, call_helper, docker_config, helper_for, keys_for, read_config


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a login is kept.

    Attributes:
        name: for people: a file, or the program of a helper.
        plain: whether whoever can read the file can read the password.
    """

    name: str
    plain: bool


def keep(host: str, username: str, password: Secret, environ: Mapping[str, str]) -> Place:
    """Keeps a login. One that was there for the host is replaced.

    Args:
        host: as in `Reference.host`; `docker.io` for Docker Hub.
        environ: the environment: DOCKER_CONFIG, HOME, PATH.

    Raises:
        LayerbuildError: the file is damaged or cannot be written, or the helper fails.
    """
    with _edited(environ) as (path, config):
        auths = config.setdefault("auths", {})
        asked = helper_for(config, host)
        key = asked[1] if asked else keys_for(host)[0]
        for name in keys_for(host):
            auths.pop(name, None)
        if asked is None:
            pair = f"{username}:{password.reveal()}"
            auths[key] = {"auth": base64.b64encode(pair.encode()).decode()}
            return Place(name=str(path), plain=True)
        login = {"ServerURL": key, "Username": username, "Secret": password.reveal()}
        _call(asked[0], "store", json.dumps(login).encode(), environ)
        # as Docker does: who lists the logins finds it
        auths[key] = {}
        return Place(name=f"docker-credential-{asked[0]}", plain=False)


def forget(host: str, environ: Mapping[str, str]) -> bool:
    """Forgets the login of a host; whether there was one. Arguments and errors are those of `keep`."""
    with _edited(environ) as (_, config):
        asked = helper_for(config, host)
        erased = asked is not None and _call(asked[0], "erase", asked[1].encode(), environ)
        auths = config.get("auths", {})
        found = [auths.pop(name) for name in keys_for(host) if name in auths]
        return erased or bool(found)


def _call(helper: object, action: str, data: bytes, environ: Mapping[str, str]) -> bool:
    """Whether the helper had something to do."""
    problems: list[str] = []
    done = call_helper(helper, action, data, environ, problems)
    if done is None or (done.returncode and action == "store"):
        # its own words may quote what it was given
        raise LayerbuildError(
            f"the login cannot be {'kept' if action == 'store' else 'forgotten'}",
            cause="; ".join(problems) or f"the credential helper docker-credential-{helper} failed",
            hint="see that the helper works, or take 'credsStore' or 'credHelpers' out of docker's config.json",
        )
    return not done.returncode


@contextlib.contextmanager
def _edited(environ: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Docker's file and what is in it, which is written if the block changed it. One writer at a time."""
    path = docker_config(environ)
    if path is None:
        raise LayerbuildError(
            "there is no place for logins", cause="neither DOCKER_CONFIG nor HOME is set", hint="set DOCKER_CONFIG"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            config = _read(path)
            before = json.dumps(config)
            yield path, config
            if json.dumps(config) != before:
                # a link stays one
                _replace(path.resolve(), json.dumps(config, indent="\t", ensure_ascii=False).encode())
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise LayerbuildError(
            f"{path} cannot be written", cause=cause, hint="check its directory, or set DOCKER_CONFIG to another"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    problems: list[str] = []
    config = read_config(path, problems)
    if config is not None and not isinstance(config.get("auths", {}), dict):
        problems.append("its 'auths' is not an object")
    if problems:
        raise LayerbuildError(
            f"{path} cannot be used", cause="; ".join(problems), hint="repair it, or move it away: it is left as it is"
        )
    return config or {}


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    # only its owner can read what mkstemp makes
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""`layerbuild login`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from layerbuild import http
from layerbuild.cli import options
from layerbuild.errors import LoginRequired, UsageError
from layerbuild.registry import logins
from layerbuild.registry.credentials import Credential, Secret
from layerbuild.registry.reference import is_host, looks_like_host, normal_host

_LONGEST_PASSWORD = 64 * 1024


@click.command("login")
@click.argument("host", metavar="HOST[:PORT]")
@click.option("-u", "--username", metavar="NAME", help="Whose login it is; asked for if left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password, or an access token, from standard input.")
@options.insecure
def command(host: str, username: str | None, password_stdin: bool, insecure: Sequence[str]) -> None:
    """Log in to a registry, and keep the login where docker keeps it.

    The registry is asked first whether it takes the login. It is kept in $DOCKER_CONFIG/config.json, else
    ~/.docker/config.json, or with the credential helper that this file names.

    \b
    Examples:
      layerbuild login ghcr.io
      layerbuild login ghcr.io --username acme --password-stdin < token.txt
      layerbuild login docker.io                   Docker Hub
    """
    name = host_of(host)
    if password_stdin and username is None:
        raise UsageError("--password-stdin needs --username", hint="add --username NAME")
    if not password_stdin and not sys.stdin.isatty():
        raise UsageError(
            "nobody is here to be asked for a password",
            cause="standard input is no terminal",
            hint="add --username NAME --password-stdin",
        )
    if username is None:
        username = click.prompt("Username", err=True)
    password = _read_password() if password_stdin else click.prompt("Password", hide_input=True, err=True)
    if ":" in username or not username.isprintable() or not username:
        raise UsageError(
            "this cannot be a name for a login",
            cause="it is empty, or has a ':' or a control character",
            hint="write the name of the account, as on the registry's page",
        )
    asked = _check(name, username, Secret(password), insecure)
    place = logins.keep(name, username, Secret(password), os.environ)
    click.echo(f"logged in to {name} as {username}; kept in {place.name}")
    if not asked:
        click.echo(f"  {name} lets anybody in at its front door: whether the login is right will show later", err=True)
    if place.plain:
        click.echo("  as readable as that file is; a credential helper ('credsStore' in it) is safer", err=True)


def host_of(text: str) -> str:
    """The registry that a command line names, as in `Reference.host`.

    Raises:
        UsageError: it names none.
    """
    if not is_host(text) or not looks_like_host(text):
        raise UsageError(
            f"{text[:200]!r} is not a registry",
            hint="write HOST or HOST:PORT, without a scheme and a path, for example ghcr.io",
        )
    return normal_host(text)


def _read_password() -> str:
    data = sys.stdin.buffer.read(_LONGEST_PASSWORD + 1)
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > _LONGEST_PASSWORD:
        raise UsageError(
            "there is no password on standard input",
            cause="it is empty, too long, or no UTF-8",
            hint="pipe the password in: layerbuild login HOST --username NAME --password-stdin < FILE",
        )
    return text


def _check(host: str, username: str, password: Secret, insecure: Sequence[str]) -> bool:
    """Whether the registry asked for a login at all.

    Raises:
        LoginRequired: it did, and does not take this one.
    """
    from layerbuild.registry.client import RegistryClient  # noqa: PLC0415  # loads oras

    login = Credential(username=username, password=password)
    plain = host in {normal_host(name) for name in insecure}
    client = RegistryClient(host, client=http.Client(), environ=os.environ, insecure=plain, login=login)
    try:
        return client.check_login()
    except LoginRequired as error:
        hint = "check the name and the password; some registries want an access token in its place"
        raise LoginRequired(f"the registry {host} does not let {username} in", cause=error.cause, hint=hint) from None

"""`layerbuild logout`."""

from __future__ import annotations

import os

import click

from layerbuild.cli.login import host_of
from layerbuild.registry import logins
from layerbuild.registry.credentials import find_credential


@click.command("logout")
@click.argument("host", metavar="HOST[:PORT]")
def command(host: str) -> None:
    """Forget the login of a registry.

    It is taken out of docker's config file, and from the credential helper that this file names. A login that
    podman keeps is left alone.

    \b
    Examples:
      layerbuild logout ghcr.io
    """
    name = host_of(host)
    known = logins.forget(name, os.environ)
    click.echo(f"logged out of {name}" if known else f"no login for {name} was kept")
    if find_credential(name, os.environ).credential is not None:
        click.echo(f"  podman keeps one, which is still used: 'podman logout {name}' forgets it", err=True)

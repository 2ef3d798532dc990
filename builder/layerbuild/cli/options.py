"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from layerbuild.cli.workspace import frozen_by_default

F = TypeVar("F", bound=Callable[..., Any])


def insecure(command: F) -> F:
    """`--insecure HOST`."""
    return click.option(
        "--insecure",
        multiple=True,
        metavar="HOST[:PORT]",
        help="Speak plain HTTP to this registry. Loopback hosts need no such word.",
    )(command)


def as_json(command: F) -> F:
    """`--json`."""
    return click.option("--json", "json_output", is_flag=True, help="Print the result as JSON, for programs.")(command)


def frozen(command: F) -> F:
    """`--frozen / --no-frozen`."""
    return click.option(
        "--frozen/--no-frozen",
        default=frozen_by_default,
        help="Leave lockfile.yaml alone; receipts stay in the store. Default where CI is set.",
    )(command)


def cache_from(command: F) -> F:
    """`--cache-from REF` and `--trust-receipts`: see `adoption.adopt`."""
    trust = click.option(
        "--trust-receipts",
        is_flag=True,
        help="Believe the images of --cache-from unread: whoever can push there decides what your layers hold.",
    )
    named = click.option(
        "--cache-from",
        multiple=True,
        metavar="REF",
        help="Take over layers that this image has, once every byte was held against the lock's pins.",
    )
    return named(trust(command))

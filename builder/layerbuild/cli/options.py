"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from layerbuild.api.options import MakeOptions
    from layerbuild.api.project import Project
    from layerbuild.declarations import Declarations
    from layerbuild.images import ImageDeclaration

F = TypeVar("F", bound=Callable[..., Any])


def insecure(command: F) -> F:
    """`--insecure HOST`."""
    return click.option(
        "--insecure",
        multiple=True,
        metavar="HOST[:PORT]",
        help="Speak plain HTTP to this registry, without TLS. Loopback hosts need no such word.",
    )(command)


def as_json(command: F) -> F:
    """`--json`: the result on standard output; progress and errors as events on standard error (docs/events.md)."""

    def told(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        if isinstance(ctx.obj, dict):
            ctx.obj["events"] = value
        return value

    words = "Print the result as JSON, for programs; progress and errors as lines of JSON on standard error."
    return click.option("--json", "json_output", is_flag=True, callback=told, help=words)(command)


def frozen(command: F) -> F:
    """`--frozen / --no-frozen`."""
    return click.option(
        "--frozen/--no-frozen",
        default=None,
        help="Leave lockfile.yaml alone; receipts stay in the store. Default where CI is set.",
    )(command)


def receipts_out(command: F) -> F:
    """`--receipts-out FILE`."""
    return click.option(
        "--receipts-out",
        metavar="FILE",
        help="Write the lock with what was made to FILE; 'layerbuild lock --record FILE' takes it over.",
    )(command)


def selection(command: F) -> F:
    """`[IMAGE]... --label KEY[=GLOB] --changed-since REV`; see `selected`."""
    return click.argument("patterns", metavar="[IMAGE]...", nargs=-1)(narrowing(command))


def narrowing(command: F) -> F:
    """`--label KEY[=GLOB] --changed-since REV`; see `selected`."""
    since = click.option(
        "--changed-since",
        metavar="REV",
        help="Only images of which lockfile.yaml says something else than it did at this git revision.",
    )
    label = click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY[=GLOB]",
        help="Only images with this label in their recipe. Repeatable: all must hold.",
    )
    return label(since(command))


def selected(project: Project | Declarations, arguments: Mapping[str, Any]) -> tuple[ImageDeclaration, ...]:
    """The images that a command with `selection` is about.

    That there is none, or none has changed, is no error: it is said, and the command ends there; with `--json` it goes
    on with none, and prints an empty result.
    """
    since = arguments["changed_since"]
    images = project.select(arguments["patterns"], labels=arguments["labels"], changed_since=since)
    if not images and not arguments["json_output"]:
        click.echo(f"no image changed since {since}" if since else "recipes/ has no recipe yet")
        raise click.exceptions.Exit(0)
    return images


def cache_from(command: F) -> F:
    """`--cache-from REF` and `--trust-receipts`: see `making`."""
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


def executor(command: F) -> F:
    """`--executor ADDRESS`: see `making`."""
    return click.option(
        "--executor",
        metavar="ADDRESS",
        help="Have model layers made and sent by the workers of the Dask scheduler at tcp://HOST:8786 or tls://HOST:8786.",
    )(command)


def making(arguments: Mapping[str, Any]) -> MakeOptions:
    """What `cache_from`, `executor`, `frozen` and `receipts_out` say."""
    from layerbuild.api.options import MakeOptions  # noqa: PLC0415  # building and pushing need it

    return MakeOptions(
        cache_from=arguments["cache_from"],
        trust_receipts=arguments["trust_receipts"],
        executor=arguments["executor"],
        frozen=arguments["frozen"],
        receipts_out=arguments["receipts_out"],
    )

"""`layerbuild`: finds the command, and turns errors into words and exit codes.

Nothing heavy is imported before a command is known, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from layerbuild import __version__
from layerbuild.errors import LayerbuildError, unforeseen

_COMMANDS = {
    "lock": ("lock", "Pin every source of the project in lockfile.yaml; downloads no weights."),
    "plan": ("plan", "Say what would be fetched, packed and sent, in bytes, before anything moves."),
    "build": ("build", "Make every layer that has no receipt yet; writes no image."),
    "push": ("push", "Send images to a registry, an OCI layout or an archive, only what is missing there."),
    "verify": ("verify", "Hold a pushed image against the lock: its documents, or every byte."),
    "ls": ("ls", "List images, layers, models or recipes."),
    "show": ("show", "Show an image as models and layers: of the project, or anywhere."),
    "why": ("why", "Say where a digest, a model or a path of an image comes from."),
    "diff": ("diff", "Say in words what moved between two locks, and what that costs to push."),
    "audit": ("audit", "Say what a cold start would still download, hash or wait for in any image."),
    "attach": ("attach", "Attach files to a pushed image: an SBOM, a licence, the lock."),
    "referrers": ("referrers", "List what is attached to a pushed image."),
    "login": ("login", "Log in to a registry, and keep the login where docker keeps it."),
    "logout": ("logout", "Forget the login of a registry."),
    "schema": ("schema", "Print the JSON Schema of layers or recipes, for editors."),
    "demo": ("demo", "See it work: a small project with real files, locked, built and pushed."),
}
"""Command -> module in this package, and what it is for."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"layerbuild.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A project has recipes/ and usually layers/; 'layerbuild demo' makes a small one to look at. "
    "Exit codes: 0 done, 1 failed, 2 wrong input, 3 the lock has drifted, 4 an audit found something, "
    "130 interrupted.",
)
@click.version_option(__version__, prog_name="layerbuild")
@click.option("-C", "--project", metavar="DIR", help="The project. Default: the nearest directory with recipes/.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; results and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request to standard error, without its secrets.")
@click.option("--debug", is_flag=True, help="Show where in the code an error came from.")
@click.pass_context
def group(ctx: click.Context, /, **options: Any) -> None:
    """Reproducible, content-addressed OCI layers for Stable Diffusion webui images.

    Recipes say what is in an image; `lock` pins it, `push` sends it. A model is hashed once in its
    life and uploaded only where it is missing, and a worker started from the image hashes nothing.
    """
    ctx.obj = options
    if os.environ.get("NO_COLOR"):
        ctx.color = False  # no-color.org; click itself does not know it
    if options["verbose"]:
        _log_requests()


def _log_requests() -> None:
    import logging  # noqa: PLC0415  # only where it is asked for

    class ToStandardError(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(record.getMessage(), err=True)

    # Ours alone: other libraries log whole addresses.
    logger = logging.getLogger("layerbuild")
    logger.handlers = [ToStandardError()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)


def main() -> None:
    """Entry point of the `layerbuild` command."""
    debug = "--debug" in sys.argv
    try:
        sys.exit(group.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LayerbuildError as error:
        if debug:
            raise
        _print_error(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr.isatty():
            # A bar that is torn away leaves the cursor hidden.
            click.echo("\x1b[?25h", err=True, nl=False)
        click.echo("\ninterrupted; what is finished is kept: run the same command again to continue", err=True)
        # Worker threads may sit in a read for a minute; nothing they have is visible before it is whole.
        sys.stdout.flush()
        os._exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _print_error(unforeseen(error))
        sys.exit(1)


def _print_error(error: LayerbuildError) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(error.message, err=True)
    if error.cause:
        click.echo(f"  because: {error.cause}", err=True)
    if error.hint:
        click.echo(f"  try: {error.hint}", err=True)

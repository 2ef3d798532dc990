"""`layerbuild`: finds the command, and turns errors into words and exit codes.

Nothing heavy is imported before a command is known, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from layerbuild import __version__

COMPLETE = "_LAYERBUILD_COMPLETE"
"""Variable by which a shell asks what a command line could go on with: see `completing`."""

_COMMANDS = {
    "init": ("init", "Write a small project here: a recipe, a file for layers, schemas for editors."),
    "import": ("importing", "Write the recipe that replaces a Dockerfile, and say what became of each line."),
    "add": ("add", "Declare a model, a snapshot or an extension: paste its page, its link or its path."),
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
    "report": ("report", "Draw the project as a page: layers, what is shared, pulls, models, audits."),
    "attach": ("attach", "Attach files to a pushed image: an SBOM, a licence, the lock."),
    "referrers": ("referrers", "List what is attached to a pushed image."),
    "login": ("login", "Log in to a registry, and keep the login where docker keeps it."),
    "logout": ("logout", "Forget the login of a registry."),
    "store": ("store", "Look at this machine's store, verify it, repair it."),
    "gc": ("gc", "Remove from this machine's store what no project needs."),
    "completion": ("completion", "Print what makes bash, zsh or fish complete commands and names."),
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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as reason:
            raise Stopped(reason) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A project has recipes/ and usually layers/; 'layerbuild init' makes one, 'layerbuild demo' one to look at. "
    "Exit codes: 0 done, 1 failed, 2 wrong input, 3 the lock has drifted, 4 an audit found something, "
    "130 interrupted, 143 terminated.",
)
@click.version_option(__version__, prog_name="layerbuild")
@click.option("-C", "--project", metavar="DIR", help="The project. Default: the nearest directory with recipes/.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; results and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request: status, seconds, bytes; no secrets.")
@click.option("--debug", is_flag=True, help="Show where in the code an error came from, without secrets.")
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

    from layerbuild.cli import display  # noqa: PLC0415

    class ToStandardError(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            display.log(record.getMessage())

    # Ours alone: other libraries log whole addresses.
    logger = logging.getLogger("layerbuild")
    logger.handlers = [ToStandardError()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what stops a container. All that heeds Ctrl-C heeds it."""


class Stopped(BaseException):
    """A command was interrupted. Not a KeyboardInterrupt: click would take that for its own.

    Attributes:
        exit_code: 128 and the signal's number.
    """

    def __init__(self, reason: KeyboardInterrupt) -> None:
        self.exit_code = 128 + (signal.SIGTERM if isinstance(reason, _Terminated) else signal.SIGINT)


def run(arguments: Sequence[str]) -> int:
    """A command to its end. What failed is told on standard error.

    Returns:
        The exit code.

    Raises:
        Stopped: by Ctrl-C, or SIGTERM.
        BrokenPipeError: whoever read standard output is gone.
    """
    told = _Told(arguments)
    try:
        code = int(group.main(list(arguments) or ["--help"], prog_name="layerbuild", standalone_mode=False) or 0)
    except Stopped:
        raise
    except BrokenPipeError:
        told.unheard()
        raise
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.Abort as stop:
        raise Stopped(KeyboardInterrupt()) from stop
    except Exception as error:
        return told.failure(error)
    told.end(code)
    return code


class _Told:
    """How a run ends, in the words of whoever listens."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._events = "--json" in arguments
        self._debug = "--debug" in arguments
        self._quiet = any(word in ("-q", "--quiet") for word in arguments)

    def failure(self, error: Exception) -> int:
        """Tells of an error; returns its exit code."""
        from layerbuild.cli import display, failure  # noqa: PLC0415

        display.settle()
        found = failure.explained(error)
        if self._events:
            trace = {"trace": failure.trace(error)} if self._debug else {}
            display.emit("error", **failure.as_json(found), **trace)
        else:
            if self._debug:
                click.echo(failure.trace(error), err=True)
            failure.show(found)
        return found.exit_code

    def unheard(self) -> None:
        """Takes the display away: whoever read results is gone."""
        from layerbuild.cli import display  # noqa: PLC0415

        display.settle()

    def end(self, code: int) -> None:
        """Takes the display away, where there is one."""
        if not self._events and "layerbuild.cli.display" not in sys.modules:
            return
        from layerbuild.cli import display  # noqa: PLC0415

        tally = display.settle()
        if self._events and not self._quiet:
            display.emit("result", exit_code=code, **tally.as_json())

    def interrupted(self, code: int) -> None:
        """Tells how to go on."""
        from layerbuild.cli import display  # noqa: PLC0415

        tally = display.settle()
        message = "interrupted; what is finished is kept: run the same command again to continue"
        if self._events:
            display.emit("interrupted", message=message, exit_code=code, **tally.as_json())
        else:
            click.echo(f"\n{message}", err=True)


def main() -> None:
    """Entry point of the `layerbuild` command."""
    if COMPLETE in os.environ:
        from layerbuild.cli import completing  # noqa: PLC0415  # a shell asks, and waits for the answer

        sys.exit(completing.answer(group, os.environ))
    arguments = sys.argv[1:]
    _complete_streams()
    try:
        signal.signal(signal.SIGTERM, _terminate)
        code = run(arguments)
    except (Stopped, KeyboardInterrupt) as reason:
        stopped = reason if isinstance(reason, Stopped) else Stopped(reason)
        _Told(arguments).interrupted(stopped.exit_code)
        # Worker threads may sit in a read for a minute; nothing they have is visible before it is whole.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(stopped.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _complete_streams() -> None:
    """What is no text, or not in the terminal's character set, is written as an escape; what was closed is no more."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _terminate(*_: object) -> None:
    # Once is enough: a second one would cut off what is said of the first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated

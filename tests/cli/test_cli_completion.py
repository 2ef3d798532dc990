"""Completion as shells do it: keys are typed into real ones, and what stands on their line is read."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from fixtures.project import Project
from layerbuild.cli import shape
from layerbuild.cli.main import group
from layerbuild.cli.names import complete
from layerbuild.cli.shells import SCRIPTS
from layerbuild.store import Store

_LOCK = """\
# Written by layerbuild
version: 1
layers:
  night[webui.root=/webui]:
    declaration: aa
    pins: {}
  night:
    declaration: aa
  'quoted: it''s':
    declaration: aa
  paint:
    declaration: bb
files: {}
images:
  gallery:
    platform: linux/amd64
    layers:
    - weights/night@0000
  many@linux/amd64:
    platform: linux/amd64
  many@linux/arm64:
    platform: linux/arm64
  "evil$(touch hurt)":
    platform: linux/amd64
indexes: {}
"""
_RECIPE = "name: gallery\nlayers: []\nconfig: {labels: {team: art, size: '{{ big }}'}}\n"
_TIMEOUT = 60


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the store knows of commands after the first answer."""
    place = tmp_path_factory.mktemp("remembered")
    shape.tree(group, {"LAYERBUILD_STORE": str(place)})
    return (place / "completion.json").read_bytes()


@pytest.fixture
def project(project: Project, tmp_path: Path, remembered: bytes) -> Project:
    """A project with names of every sort, and `layerbuild` on the path."""
    project.write({"lockfile.yaml": _LOCK, "recipes/gallery.yaml": _RECIPE, "images/blobs/x": "", "image.tar": ""})
    program = tmp_path / "bin" / "layerbuild"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -W error -m layerbuild "$@"\n')
    program.chmod(0o755)
    project.environ["PATH"] = f"{program.parent}:{project.environ['PATH']}"
    with contextlib.closing(Store(project.store)) as store:
        store.remember_push("ghcr.io", "acme/a1111/gallery", "sha256:1")
        store.remember_push("127.0.0.1:5000", "test/gallery", "sha256:1")
    (project.store / "completion.json").write_bytes(remembered)
    for command in ("init -q -b main", "add lockfile.yaml", "commit -q -m message", "tag v1.0"):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *author, *command.split()], cwd=project.root, env=project.environ, check=True)
    return project


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, command: list[str], project: Project) -> None:
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(project.root)
            os.execvpe(command[0], command, {**project.environ, "TERM": "dumb", "PS1": "> ", "HISTFILE": "/dev/null"})

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """What the terminal shows, from what was read before on, once it holds `pattern`."""
        seen, end = "", time.monotonic() + _TIMEOUT
        while (found := re.search(pattern, seen)) is None:
            ready, _, _ = select.select([self._terminal], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {seen!r}"
            seen += os.read(self._terminal, 65536).decode(errors="replace")
        return found

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


_BASH = "bind 'set bell-style none' 2>/dev/null; source ./script; echo rea''dy\n"
_ZSH = "autoload -Uz compinit; compinit -u -d dump; unsetopt beep; source ./script; echo rea''dy\n"


@pytest.fixture(params=["bash", "zsh"])
def typed(request: pytest.FixtureRequest, project: Project) -> Iterator[Callable[[str], str]]:
    """Gives what stands on the line of a shell after some keys and a tab."""
    shell = request.param
    project.write({"script": project.run("completion", shell).out})
    commands = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
    terminal = Terminal(commands[shell], project)
    terminal.type(_BASH if shell == "bash" else _ZSH)
    terminal.until("ready")

    def line(keys: str) -> str:
        # To the line's beginning, a quoting command before it, to its end; a comma tells of a space there.
        terminal.type(f"{keys}\t,\x01printf '<%s>' \x05; echo d''one\n")
        shown = terminal.until(r"(?s)((?:<[^>]*>)+)done")
        return " ".join(re.findall(r"<([^>]*)>", shown[1]))

    yield line
    terminal.close()


_LINES = {
    "layerbuild pl": "layerbuild plan ,",
    "layerbuild push oci:im": "layerbuild push oci:images/,",
    "layerbuild push archive:image.": "layerbuild push archive:image.tar ,",
    "layerbuild push gh": "layerbuild push ghcr.io/acme/a1111 ,",
    "layerbuild push 127.0.0.1:5": "layerbuild push 127.0.0.1:5000/test ,",
    "layerbuild push oci:images ga": "layerbuild push oci:images gallery ,",
    "layerbuild plan many@linux/ar": "layerbuild plan many@linux/arm64 ,",
    "layerbuild lock --update ni": "layerbuild lock --update night ,",
    "layerbuild lock --update=pa": "layerbuild lock --update=paint ,",
    "layerbuild plan --label te": "layerbuild plan --label team ,",
    "layerbuild plan --label team=": "layerbuild plan --label team=art ,",
    "layerbuild plan --changed-since v": "layerbuild plan --changed-since v1.0 ,",
    "layerbuild login gh": "layerbuild login ghcr.io ,",
    "layerbuild schema la": "layerbuild schema layers ,",
    "layerbuild store ver": "layerbuild store verify ,",
    "layerbuild push --moun": "layerbuild push --mount ,",
    "layerbuild lock --record lockf": "layerbuild lock --record lockfile.yaml ,",
    "layerbuild --project rec": "layerbuild --project recipes/,",
    "layerbuild nothing-like-tha": "layerbuild nothing-like-tha,",
}
"""What is typed before a tab, and what stands there after it and a comma."""


def test_a_shell_completes(typed: Callable[[str], str]) -> None:
    assert {keys: typed(keys) for keys in _LINES} == _LINES


def test_a_name_is_no_order_to_a_shell(typed: Callable[[str], str], project: Project) -> None:
    line = typed("layerbuild plan ev")
    assert line in ("layerbuild plan ev,", r"layerbuild plan evil$(touch hurt) ,")
    assert not (project.root / "hurt").exists()


def fish(project: Project, *lines: str) -> list[list[str]]:
    """What fish offers for each line, without what it says of it."""
    project.write({"script.fish": project.run("completion", "fish").out})
    asks = "; echo next; ".join(f"complete -C {shlex.quote(line)}" for line in lines)
    command = ["fish", "--no-config", "-c", f"source script.fish; {asks}"]
    done = subprocess.run(command, cwd=project.root, env=project.environ, capture_output=True, check=True, timeout=60)
    assert done.stderr == b""
    answers = [text.splitlines() for text in done.stdout.decode().split("next\n")]
    return [[line.partition("\t")[0] for line in answer] for answer in answers]


def test_fish_completes(project: Project) -> None:
    lines = [keys for keys, after in _LINES.items() if after != f"{keys},"]
    words = [[_LINES[keys].rstrip(" ,").split(" ")[-1]] for keys in lines]
    assert fish(project, *lines) == words


def test_fish_shows_everything_in_order(project: Project) -> None:
    commands, places = fish(project, "layerbuild ", "layerbuild push ")
    assert {"lock", "plan", "store", "gc"} <= set(commands)
    assert places == ["oci:", "archive:", "127.0.0.1:5000/test", "ghcr.io/acme/a1111"]


# --- without a shell -----------------------------------------------------------------------------------


def asked(project: Project, line: str, *, shell: str = "zsh") -> list[str]:
    """What layerbuild answers a shell."""
    environ = {"_LAYERBUILD_COMPLETE": shell, "COMP_LINE": line, "COMP_WORDBREAKS": " :=@"}
    done = project.run(env=environ)
    assert done.err == ""
    return [text.split("\t")[1] for text in done.out.splitlines()]


def test_names_of_a_lock(project: Project) -> None:
    assert asked(project, "layerbuild plan ") == ["gallery", "many", "evil$(touch hurt)"]
    assert asked(project, "layerbuild plan ", shell="bash") == ["gallery", "many"]
    assert asked(project, "layerbuild lock --update ") == ["night", "quoted: it's", "paint"]
    assert asked(project, "layerbuild lock --repack g") == ["gallery"]
    assert asked(project, "layerbuild audit ")[:2] == ["gallery", "many"]
    assert sorted(asked(project, "layerbuild plan --changed-since ")) == ["HEAD", "main", "v1.0"]
    assert asked(project, "layerbuild plan --label ") == ["team", "size"]
    assert asked(project, "layerbuild -C recipes/.. plan g") == ["gallery"]


def test_what_was_given_is_not_offered_again(project: Project) -> None:
    assert "--check" in asked(project, "layerbuild lock --")
    assert "--check" not in asked(project, "layerbuild lock --check --")
    assert {"--frozen", "--no-frozen"} <= set(asked(project, "layerbuild push --"))


@pytest.mark.parametrize(
    "lock",
    ["", "images:", "images: {}", "\xff", "images:\n  a\x1b[2J: {}\n  b\tc: {}\n", "a" * 99_999, "images:\n\n"],
)
def test_a_lock_that_makes_no_sense_has_no_names(project: Project, lock: str) -> None:
    project.write({"lockfile.yaml": lock.encode("latin-1"), "recipes/x.yaml": "a: [", "recipes/y.yaml": "config: 7"})
    for line in ("layerbuild plan ", "layerbuild lock --update "):
        assert asked(project, line) == []
    assert asked(project, "layerbuild plan --label ") == ["team", "size"]


def test_outside_of_a_project_there_are_commands(project: Project, tmp_path: Path) -> None:
    (tmp_path / "nowhere").mkdir()
    project.root = tmp_path / "nowhere"
    assert asked(project, "layerbuild plan ") == []
    assert "plan" in asked(project, "layerbuild ")
    assert asked(project, "layerbuild plan --changed-since ") == []


def test_in_a_directory_that_is_gone_there_are_commands(project: Project) -> None:
    environ = {**project.environ, "_LAYERBUILD_COMPLETE": "bash"}
    for line, known in (("layerbuild plan ", b""), ("layerbuild pla", b"plain\tplan")):
        gone = f'd=$(mktemp -d) && cd "$d" && rmdir "$d" && COMP_LINE="{line}" exec "$0" -m layerbuild'
        done = subprocess.run(["sh", "-c", gone, sys.executable], env=environ, capture_output=True, check=True)
        assert (done.stderr, done.stdout[: len(known)], bool(done.stdout)) == (b"", known, bool(known))


def test_a_shell_that_nobody_knows(project: Project) -> None:
    assert project.run(env={"_LAYERBUILD_COMPLETE": "tcsh"}, check=False).code == 1


def test_commands_are_remembered_until_the_code_changes(project: Project) -> None:
    memory = project.store / "completion.json"
    first = asked(project, "layerbuild ")
    value = json.loads(memory.read_text())
    del value["shape"]["commands"]["plan"]
    memory.write_text(json.dumps(value))
    assert set(first) - set(asked(project, "layerbuild ")) == {"plan"}, "commands were not loaded"
    for broken in (json.dumps({**value, "key": "older"}), "[", "7", ""):
        memory.write_text(broken)
        assert asked(project, "layerbuild ") == first
    memory.unlink()
    memory.mkdir()
    assert asked(project, "layerbuild ") == first, "what cannot be remembered is found out again"


def test_what_is_remembered_is_what_the_commands_are(tmp_path: Path) -> None:
    copy = shape.tree(group, {"LAYERBUILD_STORE": str(tmp_path)})

    def compare(one: click.Command, other: click.Command) -> None:
        for left, right in zip(one.params, other.params, strict=True):
            assert (left.name, left.opts, left.secondary_opts) == (right.name, right.opts, right.secondary_opts)
            assert left.nargs == right.nargs
        if isinstance(one, click.Group) and isinstance(other, click.Group):
            context = click.Context(one)
            for name in one.list_commands(context):
                inside, twin = one.get_command(context, name), other.get_command(context, name)
                assert inside is not None and twin is not None
                compare(inside, twin)

    compare(group, copy)


_FREE = {"NAME", "ADDRESS", "MEDIA/TYPE", "KEY=VALUE", "DURATION|N", "SIZE", "DIGEST"}
"""Metavars of what nobody can guess."""


def test_every_value_is_completed_or_free() -> None:
    def parameters(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
        yield from ((command.name or "", parameter) for parameter in command.params)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inside = command.get_command(context, name)
                assert inside is not None
                yield from parameters(inside)

    unknown = {
        f"{command} {parameter.name}: {parameter.metavar}"
        for command, parameter in parameters(group)
        if not (isinstance(parameter, click.Option) and parameter.is_flag)
        and not isinstance(parameter.type, click.Choice)
        and parameter.metavar not in _FREE
        and complete(command, parameter.name or "", parameter.metavar or "") is None
    }
    assert unknown == set(), "give cli/names.py a completer for the metavar, or call it free here"


def test_an_answer_loads_neither_the_project_nor_the_network(project: Project) -> None:
    asked(project, "layerbuild ")
    code = (
        "import sys; from layerbuild.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print(*(m for m in ('pydantic', 'requests', 'oras', 'rich') if m in sys.modules))"
    )
    environ = {**project.environ, "_LAYERBUILD_COMPLETE": "bash", "COMP_LINE": "layerbuild push oci:x g"}
    done = subprocess.run([sys.executable, "-c", code], cwd=project.root, env=environ, capture_output=True, check=True)
    assert done.stdout.decode().split("\n") == ["plain\tgallery", "", ""]


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_scripts_are_what_the_shell_calls_valid(project: Project, shell: str) -> None:
    project.write({"the-script": project.run("completion", shell).out})
    subprocess.run([shell, "-n", "the-script"], cwd=project.root, check=True, timeout=60)

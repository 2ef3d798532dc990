"""Every command's help has examples, and each of them runs as it is written: in a shell, in the demo's project, with
servers of this machine in the place of those that an example names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fixtures.civitai import Civitai
from fixtures.cluster import Cluster
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.project import Project, safetensors
from fixtures.registry import PASSWORD, USER, Front
from fixtures.terminal import Terminal
from fixtures.web import Web
from layerbuild.cli.main import group


def _commands(command: click.Command = group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if path:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, (*path, name))


def _examples(command: click.Command) -> list[str]:
    """The lines below `Examples:` without what is said of them, which two blanks set apart."""
    block = (command.help or "").partition("Examples:\n")[2].partition("\n\n")[0]
    return [re.split(r"(?<=\S)  +", line.strip())[0] for line in block.splitlines() if line.strip()]


COMMANDS = dict(_commands())


def test_every_command_has_an_example_of_itself() -> None:
    for name, command in COMMANDS.items():
        found = _examples(command)
        assert found, name
        own = [line for line in found if line.startswith(f"layerbuild {name}")]
        assert own == found, name


class World:
    """The demo's project in git, pushed; and what stands for the names of the examples."""

    def __init__(self, project: Project, registry: Front, closed: Front, hub: Hub, civitai: Civitai, web: Web) -> None:
        project.run("demo", "demo")
        self.root = project.root / "demo"
        self.home = project.home
        self.environ = {
            **project.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "LAYERBUILD_STORE": str(self.root / ".store"),
            "HF_ENDPOINT": hub.endpoint,
            "CIVITAI_ENDPOINT": civitai.endpoint,
            "CIVITAI_TOKEN": civitai.token,
        }
        self.stands_for = {
            "ghcr.io/acme": f"{registry.host}/{registry.prefix}",
            "127.0.0.1:5000/test": f"{registry.host}/{registry.prefix}",
            "ghcr.io": closed.host,
            "docker.io": closed.host,
            "https://github.com/acme": f"git+{web.url}",
            "/tmp/demo": str(self.root / "elsewhere"),
        }
        self._provide(hub, civitai, web)
        self.shell("layerbuild push oci:images && layerbuild push ghcr.io/acme")
        (stored, *_) = json.loads(self.shell("layerbuild store ls --json"))["items"]
        self.stands_for["697f0b42e608"] = stored["name"][:12]

    def _provide(self, hub: Hub, civitai: Civitai, web: Web) -> None:
        hub.add("acme/night", lfs={"night.safetensors": safetensors(2000, seed=5)})
        civitai.add(4383, {"page.safetensors": safetensors(2000, seed=6)}, model={"name": "Page", "type": "LORA"})
        civitai.versions[4383]["modelId"] = 4384
        civitai.add(128713, {"one.safetensors": safetensors(2000, seed=7)}, model={"name": "One", "type": "Checkpoint"})
        repository = GitRepo(self.root / "served/my-extension")
        repository.commit({"install.py": b"", "scripts/x.py": b"pass\n"})
        web.handle("/my-extension", repository.serve)
        files = {"Dockerfile": "FROM scratch\nADD https://example.org/x /x\n", "sbom.json": "{}", "NOTICE": "mine\n"}
        files |= {"worker/Dockerfile": files["Dockerfile"], "token.txt": PASSWORD}
        for name, text in files.items():
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_text(text)
        (self.root / "other").mkdir()
        (self.root / "other/lockfile.yaml").write_bytes((self.root / "lockfile.yaml").read_bytes())
        (self.root / "out.yaml").write_bytes((self.root / "lockfile.yaml").read_bytes())
        self.shell(
            "git init -q -b main && git add lockfile.yaml recipes layers && git commit -q -m first && git tag v1.0 &&"
            "git tag v1.1 && git update-ref refs/remotes/origin/main HEAD"
        )

    def named_here(self, line: str) -> str:
        """A line with what stands for the names in it."""
        for name, here in self.stands_for.items():
            line = re.sub(rf"(?<![\w./]){re.escape(name)}(?![\w.])", here, line)
        return line

    def shell(self, line: str) -> str:
        """What a line printed. It ends well."""
        line = self.named_here(line)
        who = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.root,
            env={**self.environ, **who},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, (line, done)
        assert "Traceback" not in done.stderr and PASSWORD not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def world(project: Project, registry: Front, login_registry: Front, hub: Hub, civitai: Civitai, web: Web) -> World:
    return World(project, registry, login_registry, hub, civitai, web)


_ALONE = {"init", "demo", "import"}
"""What writes a project of its own, and so runs elsewhere than in one."""


_APART = {"login", "build", "push"}
_CHANGING = {"add", "gc", "lock", "store repair"} | _ALONE
"""What leaves a project in which the examples of others may say something else."""


@pytest.mark.parametrize("names", [COMMANDS.keys() - _APART - _CHANGING, _CHANGING], ids=["reading", "changing"])
def test_examples_run(world: World, names: set[str]) -> None:
    # What `add` adds, nobody has locked.
    for name in sorted(names, key=lambda name: (name == "add", name)):
        for number, line in enumerate(_examples(COMMANDS[name])):
            before = ""
            if name in _ALONE:
                place = world.home / f"{name}-{number}"
                place.mkdir()
                before = f"cp -r Dockerfile worker {place} && cd {place} && "
            out = world.shell(before + line)
            if "--json" in line:
                json.loads(out)


def test_examples_run_with_a_cluster(world: World, cluster: Cluster) -> None:
    world.stands_for["tcp://dask:8786"] = cluster.start().ready().address
    for name in ("build", "push"):
        for line in _examples(COMMANDS[name]):
            world.shell(line)


def test_examples_of_login(world: World) -> None:
    for line in _examples(COMMANDS["login"]):
        if "--password-stdin" in line:
            world.shell(line.replace("--username acme", f"--username {USER}"))
            continue
        terminal = Terminal(["sh", "-c", world.named_here(line)], out=True, cwd=world.root, env=world.environ)
        for prompt, answer in (("Username:", USER), ("Password:", PASSWORD)):
            terminal.until(lambda lines, prompt=prompt: prompt in "".join(lines))
            terminal.enter(answer)
        assert terminal.finish() == 0 and PASSWORD.encode() not in terminal.raw

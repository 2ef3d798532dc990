"""`layerbuild completion`."""

from __future__ import annotations

import os

import click

from layerbuild.cli import shape
from layerbuild.cli.shells import SCRIPTS


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options, images, layers and places.

    \b
    Put it where your shell looks:
      bash   layerbuild completion bash > ~/.local/share/bash-completion/completions/layerbuild
             (with the package bash-completion; without it, source such a file in ~/.bashrc)
      zsh    layerbuild completion zsh > ~/.zfunc/_layerbuild
             (in ~/.zshrc before compinit: fpath+=~/.zfunc)
      fish   layerbuild completion fish > ~/.config/fish/completions/layerbuild.fish

    Names come from the lock of the project that the shell is in, and places from what the store remembers.

    \b
    Examples:
      layerbuild completion bash
      layerbuild completion zsh
      layerbuild completion fish
    """
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    # So that nobody waits at the first key.
    shape.tree(group, os.environ)
    click.echo(SCRIPTS[shell], nl=False)

"""Makes docs/demo.svg: the second half of what `layerbuild demo` prints, as a terminal shows it.

    python docs/make_picture.py

The demo's files come from a fixed seed, so that the picture changes only when layerbuild does.
"""

from __future__ import annotations

import os
import re
import tempfile
from io import StringIO
from pathlib import Path

from click.testing import CliRunner
from rich.console import Console
from rich.text import Text

from layerbuild.cli.main import group

PICTURE = Path(__file__).with_name("demo.svg")

FIRST_LINE = "A second recipe"
"""Where the picture begins: what comes before is in the README as text."""


def run_demo() -> str:
    """What `layerbuild demo` prints in a new directory, with its colours.

    Raises:
        RuntimeError: the demo failed.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        try:
            result = CliRunner().invoke(group, ["--quiet", "demo"], color=True)
        finally:
            os.chdir(before)
    if result.exception is not None:
        raise RuntimeError(f"the demo failed: {result.exception}")
    return result.stdout


def draw(output: str) -> str:
    """The picture of `output`, as SVG."""
    text = Text.from_ansi(output)
    console = Console(
        record=True,
        width=max(len(line) for line in text.plain.splitlines()),
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(text)
    svg = console.export_svg(title="layerbuild demo", unique_id="demo")
    # A picture in a repository loads nothing from elsewhere: the reader's own monospaced font serves.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def main() -> None:
    """Write the picture."""
    output = run_demo()
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if FIRST_LINE in line)
    PICTURE.write_text(draw("\n".join(lines[start:])), encoding="utf-8")


if __name__ == "__main__":
    main()

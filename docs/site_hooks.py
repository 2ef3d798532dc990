"""Makes pages of what a forge shows at the root of the repository: the README, the changelog, how to contribute.

MkDocs knows one directory of pages. These files stay where they are, and their links stay as a forge needs them; on
the way into the site links are turned to where the site has the same file. Whatever else lies outside of docs/ is not
part of the site, and a link to it fails the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE",
}
"""Files of the repository, and what they are in the site."""

_LINK = re.compile(r"(\]\()([^)\s#]+)([^)\s]*\))")
_TABLE_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files from outside of docs/."""
    for name, place in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns what a forge and MkDocs read differently."""
    del config, files
    places = {place: name for name, place in OUTSIDE.items()}
    source = places.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _unescaped(turned(part, source)) for part in parts)


def _unescaped(text: str) -> str:
    """`text` with the pipes that stand in code in tables: a forge wants them escaped, MkDocs shows the backslash."""

    def row(match: re.Match[str]) -> str:
        return _CODE.sub(lambda code: code[0].replace(r"\|", "|"), match[0])

    return _TABLE_ROW.sub(row, text)


def turned(text: str, source: str) -> str:
    """`text`, of a page that is `source` in the repository, with its links as the site has them.

    Args:
        source: a path below the root of the repository.
    """

    def turn(match: re.Match[str]) -> str:
        start, target, end = match.groups()
        if ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = OUTSIDE.get(path) or path.removeprefix("docs/")
        return f"{start}{inside}{end}"

    return _LINK.sub(turn, text)

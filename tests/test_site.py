"""The documentation as a site: it builds strictly, without a network, and every link in it leads somewhere.

The site is looked at as a reader gets it, from a web server.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import requests
import yaml

from test_docs import PAGES, ROOT

_NOWHERE = "http://127.0.0.1:9"
"""A proxy that nobody is at: what asks for anything from elsewhere fails."""

_PARTS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "srcset"), ("form", "action")}
_LOADED = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}


@dataclass
class Seen(HTMLParser):
    """What a page links to, what it is made of, and the names that can be linked to."""

    links: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.names |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        if tag == "link" and _LOADED & set(told.get("rel", "").split()):
            self.parts.append(told["href"])
        self.parts += [told[name] for name in told if (tag, name) in _PARTS and told[name]]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    place = tmp_path_factory.mktemp("site")
    environ = {**os.environ, "http_proxy": _NOWHERE, "https_proxy": _NOWHERE, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    """Where the site is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(built))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def pages(address: str) -> dict[str, Seen]:
    """Every page that can be reached from the first, by its address."""
    found: dict[str, Seen] = {}
    ahead = [address]
    with requests.Session() as session:
        session.trust_env = False
        while ahead:
            page = ahead.pop()
            if page in found or not page.startswith(address):
                continue
            answer = session.get(page, timeout=10)
            assert answer.status_code == 200, page
            if not answer.headers["Content-Type"].startswith("text/html"):
                found[page] = Seen()
                continue
            found[page] = seen = Seen()
            seen.feed(answer.content.decode("utf-8"))
            ahead += [urldefrag(urljoin(page, link)).url for link in seen.links]
    return found


def test_every_page_can_be_reached(pages: dict[str, Seen], address: str) -> None:
    reached = {urlsplit(page).path.lstrip("/") for page in pages}
    names = {"README.md": "index.html", "CONTRIBUTING.md": "contributing.html", "CHANGELOG.md": "changelog.html"}
    assert {names.get(page.name, f"{page.stem}.html") for page in PAGES} <= reached
    assert "LICENSE" in reached


def test_every_anchor_exists(pages: dict[str, Seen], address: str) -> None:
    for page, seen in pages.items():
        for link in seen.links:
            target, anchor = urldefrag(urljoin(page, link))
            if target.startswith(address) and anchor:
                assert unquote(anchor) in pages[target].names, f"{page}: {link}"


def test_nothing_comes_from_elsewhere(pages: dict[str, Seen], address: str, built: Path) -> None:
    parts = {urljoin(page, part) for page, seen in pages.items() for part in seen.parts}
    assert any(part.endswith(".css") for part in parts) and any(part.endswith(".svg") for part in parts)
    with requests.Session() as session:
        session.trust_env = False
        for part in parts:
            assert part.startswith((address, "data:", "javascript:")), part
            if part.startswith(address):
                assert session.get(part, timeout=10).status_code == 200, part
    for sheet in built.rglob("*.css"):
        told = re.findall(r"(?:url\(|@import )[\"']?([^\"')\s;]+)", sheet.read_text(encoding="utf-8"))
        assert not [address for address in told if "//" in address and not address.startswith("data:")], sheet
    for drawing in built.rglob("*.svg"):
        assert not re.search(r"(?:href|src)=\"(?!#)|url\((?!#)|@import", drawing.read_text(encoding="utf-8")), drawing


def test_the_search_knows_every_page(built: Path) -> None:
    index = yaml.safe_load((built / "search" / "search_index.json").read_text(encoding="utf-8"))
    told = {document["location"].partition("#")[0] for document in index["docs"]}
    assert {path.name for path in built.glob("*.html")} - {"404.html", "index.html"} <= told


def test_markdown_that_two_readers_take_differently(built: Path) -> None:
    """A list without a line before it, a table that is none, a pipe with its backslash: seen on a forge, not here."""
    for page in built.glob("*.html"):
        text = re.sub(r"<pre.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"<p>[^<]*\n(?:- |\d\. |\|)", text), page.name
        assert not re.search(r"<code>[^<]*\\\|", text), page.name
        assert "```" not in text, page.name

"""The page in a browser: what it shows, that it loads nothing, and that everybody can read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from fixtures.browser import Browser
from fixtures.manyimages import many
from fixtures.several import Several
from layerbuild.audit.findings import Cost, Finding
from layerbuild.audit.findings import Report as Audit
from layerbuild.cli.display import size
from layerbuild.report.page import render
from layerbuild.report.values import NotAudited, Note, Report, ReportedImage, ReportedLayer, ReportedModel, Stored

_LIGHT_AND_DARK = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> {{ 7 * 7 }} \x1b[31m \u202e\u2028 & \"'"


def write(directory: Path, report: Report) -> Path:
    page = directory / "report.html"
    page.write_text(render(report.as_json(), size), encoding="utf-8")
    return page


def layer(name: str, count: int | None, kind: str = "files", *, diff: str | None = None) -> ReportedLayer:
    stored = Stored(digest=f"sha256:{name}" if count is not None else None, diff_id=diff, size=count)
    return ReportedLayer(titles=(f"{kind} {name}",), kind=kind, key=name, stored=stored)


def image(name: str, *layers: int, audit: Audit | NotAudited | None = None) -> ReportedImage:
    return ReportedImage(
        name=name,
        platform="linux/amd64",
        base=None,
        base_known=True,
        layers=layers,
        manifest=None,
        audit=audit or NotAudited(reason="nobody looked"),
    )


def report(layers: list[ReportedLayer], images: list[ReportedImage], **more: Any) -> Report:
    sums = {"stored": 0, "separate": 0, "shared": 0, "unknown": 0}
    parts = {"project": "p", "lock": "sha256:0", "models": (), "notes": (), **sums, **more}
    return Report(images=tuple(images), layers=tuple(layers), **parts)


# --- the numbers ---------------------------------------------------------------------------------


@pytest.fixture
def drawn(several: Several, browser: Browser) -> Browser:
    """The page of a real project, in the browser."""
    several.project.run("report", "--html", "out.html")
    browser.open(several.project.root / "out.html")
    return browser


def _blobs(project: Any) -> dict[str, list[tuple[str, str, int]]]:
    """By the lock alone: image -> (digest, diffID, bytes) of each layer, in order."""
    lock = project.lock
    found = {}
    for name, locked in lock["images"].items():
        found[name] = []
        for line in locked["layers"]:
            key = line.rpartition("@")[2]
            (receipt,) = [value for full, value in lock["receipts"].items() if full.startswith(key)]
            blob = receipt.get("blobs", [{"digest": receipt["diff_id"], "size": receipt["size"]}])[0]
            found[name].append((blob["digest"], receipt["diff_id"], blob["size"]))
    return found


def test_sums_are_those_of_the_lock(several: Several, drawn: Browser) -> None:
    blobs = _blobs(several.project)
    stored = sum({digest: count for some in blobs.values() for digest, _, count in some}.values())
    separate = sum(count for some in blobs.values() for _, _, count in some)
    shown = {name: drawn.find(f"#sum-{name}") for name in ("stored", "separate", "saved")}
    numbers = {name: int(element.get_attribute("data-bytes") or "") for name, element in shown.items()}
    assert numbers == {"stored": stored, "separate": separate, "saved": separate - stored}
    assert {name: element.text for name, element in shown.items()} == {n: size(v) for n, v in numbers.items()}
    assert 0 < stored < separate


def test_pulls_are_those_of_the_lock(several: Several, drawn: Browser) -> None:
    blobs = _blobs(several.project)
    for has in ("nothing yet", *blobs):
        for wants in blobs:
            drawn.select("#pull-from", has)
            drawn.select("#pull-to", wants)
            there, wanted = blobs.get(has, []), blobs[wants]
            lacking = sum(count for digest, _, count in wanted if digest not in {d for d, _, _ in there})
            same = 0
            while same < min(len(there), len(wanted)) and there[same][1] == wanted[same][1]:
                same += 1
            chain = sum(count for _, _, count in wanted[same:])
            shown = [drawn.find(f"#pull-{way}") for way in ("digest", "chain")]
            assert [int(s.get_attribute("data-bytes") or "") for s in shown] == [lacking, chain]
            assert [s.text for s in shown] == [size(lacking), size(chain)]


def test_every_layer_of_every_image_has_a_square(several: Several, drawn: Browser) -> None:
    blobs = _blobs(several.project)
    assert len(drawn.texts(".grid .cell")) == sum(map(len, blobs.values()))
    holders = [digest for some in blobs.values() for digest, _, _ in some]
    alone = sum(1 for digest in holders if holders.count(digest) == 1)
    assert len(drawn.texts(".grid .cell.alone")) == alone > 0


def test_sizes_are_written_as_the_command_line_writes_them(browser: Browser, tmp_path: Path) -> None:
    counts = [0, 1, 999, 1023, 1024, 1280, 1331, 1536, 1048524, 1048525, 41943176, 42205184, 4265146304, 1 << 42, None]
    layers = [layer(f"l{n:02}", count) for n, count in enumerate(counts)]
    browser.open(write(tmp_path, report(layers, [image("one", *range(len(layers)))])))
    browser.select("#pull-from", "nothing yet")
    cells = browser.texts("#pulls details:first-of-type tbody tr > :nth-child(3)")
    assert cells == [size(count) for count in counts]


# --- what the reader does ---------------------------------------------------------------------------


def _rows(browser: Browser) -> list[str]:
    return browser.texts(".grid text.title")


def test_filters_and_orders(browser: Browser, tmp_path: Path) -> None:
    layers = [layer("small", 10), layer("middle", 500, "weights"), layer("large", 9000, "weights")]
    browser.open(write(tmp_path, report(layers, [image("left", 0, 1), image("right", 1, 2)])))
    assert _rows(browser) == ["middle", "large", "small"]
    browser.type("#filter-layers", "WEIGHTS")
    assert _rows(browser) == ["middle", "large"]
    browser.type("#filter-layers", "")
    browser.type("#filter-images", "lef")
    assert _rows(browser) == ["middle", "small"]
    assert "2 layers in 1 image: 510 B of images, 510 B stored" in browser.find("#matrix").text
    browser.type("#filter-images", "")
    browser.run("document.querySelector('#matrix details').open = true")
    browser.settle()
    assert browser.texts("#matrix details table:first-of-type tbody th")[:3] == ["small", "middle", "large"]
    browser.run("document.querySelector('#matrix details thead tr th:nth-child(3) button').click()")
    assert browser.texts("#matrix details table:first-of-type tbody th")[:3] == ["large", "middle", "small"]
    assert browser.find("#matrix details th[aria-sort=descending]").text == "Size"
    browser.type("#filter-layers", "nothing is called so")
    assert _rows(browser) == [] and browser.complaints() == []


def test_layers_of_the_same_images_share_a_row(browser: Browser, tmp_path: Path) -> None:
    layers = [layer("one", 10), layer("two", 20), layer("three", 40)]
    browser.open(write(tmp_path, report(layers, [image("left", 0, 1), image("right", 2)])))
    browser.find("#group").click()
    browser.settle()
    assert _rows(browser) == ["three", "2 layers: one, two"] and "30 B" in browser.find(".grid").text
    assert len(browser.texts(".grid .cell")) == 2


def test_the_keyboard_reaches_every_square(browser: Browser, tmp_path: Path) -> None:
    layers = [layer(f"part-{n}", 1000 - n) for n in range(50)]
    images = [image(f"image-{n}", *range(n, 50)) for n in range(40)]
    browser.open(write(tmp_path, report(layers, images)), width=800)
    browser.press(".grid", Keys.ARROW_DOWN)
    assert "part-39" in browser.find(".told").text and "image-0 has it" in browser.find(".told").text
    browser.press(".grid", Keys.END, *[Keys.ARROW_RIGHT] * 39)
    assert "part-0 " in browser.find(".told").text and "image-39 does not have it" in browser.find(".told").text
    box = browser.run("const b = document.querySelector('.grid'); return [b.scrollTop, b.scrollLeft]")
    assert box[0] > 0 and box[1] > 0
    assert browser.run(
        "const c = document.querySelector('.cursor').getBoundingClientRect(),"
        " b = document.querySelector('.grid').getBoundingClientRect();"
        "return c.right <= b.right && c.bottom <= b.bottom"
    )


def test_a_click_tells_what_is_there(browser: Browser, tmp_path: Path) -> None:
    layers = [layer("one", 10), layer("two", None)]
    browser.open(write(tmp_path, report(layers, [image("left", 0, 1), image("right", 0)])))
    browser.find(".grid .cell.alone").click()
    assert "two (files), 0 B + 1 \u00d7 ?" in browser.find(".told").text and "left has it" in browser.find(".told").text


def test_audits_and_notes(browser: Browser, tmp_path: Path) -> None:
    found = Finding(id="slow", severity="error", paths=("/a",), what="it is slow", cost=Cost(seconds=2.5), hint="stop")
    bad = Audit(reference="r", platform="p", digest="", webui="A1111", models=1, findings=(found,), bytes_read=0)
    images = [
        image("unknown", 0, audit=NotAudited(reason="facts are pending", hint="run x")),
        image("bad", 0, audit=bad),
    ]
    notes = (Note(text="Something is not known.", command="layerbuild build"),)
    browser.open(write(tmp_path, report([layer("one", None)], images, notes=notes)))
    rows = browser.texts("#start tbody tr")
    assert rows[0].startswith("unknownnot known") and rows[1] == "bad1 findingA11112.5 snothingnothing"
    assert "error slow (2.5 s): it is slow" in browser.find("#findings").text
    browser.find("#start tbody button").click()
    assert "Not known: facts are pending." in browser.find("#findings").text
    assert "Something is not known. layerbuild build tells." in browser.find("main").text


# --- what it must not do -----------------------------------------------------------------------------


@_LIGHT_AND_DARK
def test_it_asks_for_nothing(several: Several, browser: Browser, dark: bool) -> None:
    several.project.run("report", "--html", "out.html")
    page = several.project.root / "out.html"
    browser.open(page, dark=dark)
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert browser.complaints() == []
    browser.run("const i = new Image(); i.src = 'http://127.0.0.1:9/x'; document.body.append(i);")
    browser.run("fetch('http://127.0.0.1:9/y').catch(() => 0)")
    browser.run("const s = document.createElement('script'); s.text = 'window.mine = 1'; document.body.append(s);")
    refused = browser.complaints()
    assert all("Content Security Policy" in text for text in refused)
    assert all(any(rule in text for text in refused) for rule in ("img-src", "default-src", "script-src"))
    assert browser.run("return window.mine") is None


def test_names_are_text(browser: Browser, tmp_path: Path) -> None:
    model = ReportedModel(
        name=HOSTILE, type="lora", layer="l", licence=HOSTILE, source=HOSTILE, sha256=None, size=None, images=(0,)
    )
    one = ReportedLayer(titles=(HOSTILE,), kind="files", key=None, stored=Stored())
    hostile = image(HOSTILE, 0, audit=NotAudited(reason=HOSTILE, hint=HOSTILE))
    notes = (Note(text=HOSTILE, command=HOSTILE),)
    page = write(tmp_path, report([one], [hostile], models=(model,), notes=notes, project=HOSTILE))
    browser.open(page)
    assert browser.complaints() == [] and browser.texts("img") == [] and len(browser.texts("script")) == 2
    escaped = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u2028", "\\u2028")
    assert browser.texts("h1") == [escaped] and browser.texts("#models tbody th") == [escaped]
    assert "49" not in browser.texts("h1")[0]
    assert not re.search("[\x00-\x09\x0b-\x1f\u2028\u202e]", page.read_text(encoding="utf-8"))


@_LIGHT_AND_DARK
def test_everybody_can_read_it(several: Several, browser: Browser, dark: bool) -> None:
    several.project.run("report", "--html", "out.html")
    browser.open(several.project.root / "out.html", dark=dark)
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == dark
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    browser.press(".grid", Keys.ARROW_DOWN)
    assert browser.violations() == []


# --- how large it gets --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("huge"), many())


def _elements(browser: Browser) -> int:
    count: int = browser.run("return document.getElementsByTagName('*').length")
    return count


def test_two_hundred_images_of_five_hundred_layers(browser: Browser, huge: Path) -> None:
    assert huge.stat().st_size < 1_000_000
    browser.open(huge)
    assert _elements(browser) < 4000 and len(browser.texts(".grid .cell")) > 100
    browser.run("const b = document.querySelector('.grid'); b.scrollTo(1500, 5000)")
    browser.settle()
    assert _elements(browser) < 4000 and len(browser.texts(".grid .cell")) > 20
    browser.type("#filter-layers", "part-004")
    browser.type("#filter-images", "variant-01")
    assert _rows(browser) == ["part-004"] and "1 layer in 10 images" in browser.find("#matrix").text
    browser.type("#filter-models", "part-003")
    assert browser.texts("#models tbody th") == ["part-003.safetensors"]
    browser.type("#filter-starts", "variant-199")
    assert len(browser.texts("#start tbody tr")) == 1
    assert browser.complaints() == []


@_LIGHT_AND_DARK
def test_a_huge_one_is_readable_too(browser: Browser, huge: Path, dark: bool) -> None:
    browser.open(huge, dark=dark)
    assert browser.violations() == []


def test_a_click_on_the_picture_of_all_pulls_chooses_two(browser: Browser, huge: Path) -> None:
    browser.open(huge)
    data = json.loads(browser.texts("#data")[0])
    side = browser.run("return document.querySelector('canvas').clientWidth")
    at = [(n + 0.5) * side / len(data["images"]) for n in (3, 7)]
    browser.run(
        "const c = document.querySelector('canvas'), r = c.getBoundingClientRect();"
        "c.dispatchEvent(new MouseEvent('click', {clientX: r.left + arguments[1], clientY: r.top + arguments[0]}))",
        *at,
    )
    has, wants = (set(data["images"][n]["layers"]) for n in (3, 7))
    lacking = sum(data["layers"][i]["size"] for i in wants - has)
    assert browser.find("#pull-digest").get_attribute("data-bytes") == str(lacking)


def test_paper_has_all_of_it(browser: Browser, tmp_path: Path) -> None:
    layers = [layer(f"part-{n:02}", n) for n in range(55)]
    browser.open(write(tmp_path, report(layers, [image("one", *range(55)), image("two", 0)])))
    drawn = len(browser.texts(".grid .cell"))
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert len(browser.texts(".grid .cell")) == 56 > drawn
    room = browser.run("const b = document.querySelector('.grid'); return b.clientWidth - b.firstChild.clientWidth")
    assert room == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert len(browser.texts(".grid .cell")) == drawn and browser.complaints() == []


def test_no_image_is_a_page_too(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(tmp_path, report([], [])))
    assert browser.complaints() == [] and "0 layers in 0 images" in browser.find("#matrix").text

"""Draws docs/concepts.svg: from sources by the lock to layers, which two images share, and to a registry.

    python docs/make_drawing.py

It follows the reader's choice of light or dark, and has a ground of its own, so that it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

DRAWING = Path(__file__).with_name("concepts.svg")

WIDTH, HEIGHT = 1100, 540
_TOP, _ROW, _GAP = 80, 36, 8

_SOURCES = ("hf://", "civitai://", "git+https://", "https://, s3://", "file:")
_LOCK = (
    ("pins", "commits, digests"),
    ("facts", "headers, hashes"),
    ("receipts", "key to digest, size"),
    ("images", "layers in order"),
)
_LAYERS = (
    ("hash cache of A", "some KiB", "A", "own"),
    ("links of A", "some KiB", "A", "own"),
    ("hash cache of B", "some KiB", "B", "own"),
    ("links of B", "some KiB", "B", "own"),
    ("weights: a checkpoint", "4 GiB", "AB", "shared"),
    ("weights: a Lora", "144 MiB", "A", "shared"),
    ("Hugging Face cache", "2 MiB", "AB", "shared"),
    ("the webui's tree", "30 MiB", "AB", "shared"),
    ("base: Python, torch", "6 GiB", "AB", "base"),
)
"""Name, size, images, and how it is drawn."""

_IMAGES = {"A": 130, "B": 300}
"""Image, and where its box begins."""

_STYLE = """\
  :root { --ground: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #8c959f; --box: #f6f8fa;
    --own: #ede4fb; --own-line: #8250df; --shared: #dcf5e3; --shared-line: #1a7f37; }
  @media (prefers-color-scheme: dark) {
    :root { --ground: #14181e; --ink: #e6edf3; --soft: #a5afba; --line: #7d8590; --box: #1f252d;
      --own: #34274d; --own-line: #bc8cff; --shared: #173d25; --shared-line: #56d364; }
  }
  text { font: 17px system-ui, sans-serif; fill: var(--ink) }
  .head { font-weight: 600; font-size: 20px }
  .soft { fill: var(--soft); font-size: 15.5px }
  .end { text-anchor: end }
  .middle { text-anchor: middle }
  rect, path { stroke: var(--line); stroke-width: 1.2; fill: var(--box) }
  path { fill: none }
  .ground { fill: var(--ground); stroke: none }
  .own { fill: var(--own); stroke: var(--own-line) }
  .shared { fill: var(--shared); stroke: var(--shared-line) }
  path.own, path.shared { fill: none }
  .arrow { marker-end: url(#tip) }
  #tip path { fill: var(--line); stroke: none }"""

_TIP = (
    '<defs><marker id="tip" markerWidth="9" markerHeight="8" refX="1" refY="4" orient="auto">'
    '<path d="M0 0L9 4L0 8z"/></marker></defs>'
)
"""The head of an arrow."""

_DESCRIPTION = (
    "Sources are pinned by the lock. From the lock come layers: a hash cache and links for each image, some KiB; and "
    "weights, the Hugging Face cache, the webui's tree and the base, which the images A and B share. A registry holds "
    "the manifests of both images, and each layer once."
)


def _text(x: float, y: float, words: str, classes: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{classes}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, classes: str = "") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="{classes}"/>'


def _arrow(x: float, y: float, length: float) -> str:
    return f'<path d="M{x} {y}h{length - 8}" class="arrow"/>'


def _inputs() -> Iterator[str]:
    yield _text(20, 50, "Sources", "head")
    for number, source in enumerate(_SOURCES):
        y = _TOP + 60 + number * (_ROW + _GAP)
        yield _box(20, y, 132, _ROW)
        yield _text(32, y + 24, source)
    yield _arrow(160, _TOP + 160, 48)
    yield _text(183, _TOP + 148, "lock", "soft middle")
    yield _text(216, 50, "lockfile.yaml", "head")
    yield _box(216, _TOP + 40, 182, 248)
    for number, (name, meaning) in enumerate(_LOCK):
        y = _TOP + 74 + number * 58
        yield _text(230, y, name)
        yield _text(230, y + 21, meaning, "soft")
    yield _arrow(406, _TOP + 160, 58)
    yield _text(434, _TOP + 148, "build", "soft middle")


def _layers() -> Iterator[str]:
    yield _text(472, 50, "Layers", "head")
    for number, (name, size, images, kind) in enumerate(_LAYERS):
        y = _TOP + number * (_ROW + _GAP)
        yield _box(472, y, 262, _ROW, kind)
        yield _text(484, y + 24, name)
        yield _text(724, y + 24, size, "soft end")
        for image in images:
            to = _IMAGES[image] + 14 + number * 7
            middle = y + _ROW / 2
            yield f'<path d="M734 {middle}C762 {middle} 764 {to} 792 {to}" class="{kind}"/>'


def _outputs() -> Iterator[str]:
    yield _text(792, 50, "Images", "head")
    for image, y in _IMAGES.items():
        yield _box(792, y, 100, 84)
        yield _text(842, y + 36, f"image {image}", "middle")
        count = sum(image in images for _, _, images, _ in _LAYERS)
        yield _text(842, y + 59, f"{count} layers", "soft middle")
    yield _arrow(900, _TOP + 160, 56)
    yield _text(926, _TOP + 148, "push", "soft middle")
    yield _text(962, 50, "Registry", "head")
    yield _box(962, _TOP, 118, len(_LAYERS) * (_ROW + _GAP) - _GAP)
    yield _text(974, _TOP + 26, "2 manifests")
    yield _text(974, _TOP + 54, f"{len(_LAYERS)} layers,")
    yield _text(974, _TOP + 76, "each once:")
    for number, (_, _, _, kind) in enumerate(_LAYERS):
        yield _box(974, _TOP + 94 + number * 32, 94, 20, kind)


def draw() -> str:
    """The drawing, as SVG."""
    notes = (
        _text(216, 508, "green: one digest in every image that has it", "soft"),
        _text(216, 529, "violet: of one image alone; follows from the lock without a byte of any model", "soft"),
    )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="concepts-title concepts-desc">',
        '<title id="concepts-title">How layerbuild makes images of shared layers</title>',
        f'<desc id="concepts-desc">{escape(_DESCRIPTION)}</desc>',
        f"<style>\n{_STYLE}\n</style>",
        _TIP,
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
        *_inputs(),
        *_layers(),
        *_outputs(),
        *notes,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the drawing."""
    DRAWING.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()

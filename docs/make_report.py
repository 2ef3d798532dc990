"""Makes docs/report.png: the report of a project of seven images, as Chromium shows it.

    python docs/make_report.py

The project's files come from a fixed seed, so that the picture changes only when layerbuild does. It needs
chromium and chromium-driver (Debian's packages), and the extra `dev`. With a directory as its argument it makes the
project there, and leaves it with its report to look at.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from layerbuild import demoproject
from layerbuild.cli.main import group

PICTURE = Path(__file__).with_name("report.png")
WIDTH, HEIGHT = 1240, 1000
"""Pixels of the window."""

_MIB = 1024 * 1024

_MODELS = {
    "photo": ("checkpoint", 96, "CreativeML-OpenRAIL-M"),
    "paint": ("checkpoint", 84, "CreativeML-OpenRAIL-M"),
    "night": ("checkpoint", 72, None),
    "portrait": ("checkpoint", 64, "CreativeML-OpenRAIL++-M"),
    "ink": ("lora", 24, "CC-BY-4.0"),
    "detail": ("lora", 18, "Apache-2.0"),
    "vae": ("vae", 20, "MIT"),
}
"""Name -> type, size of its file in MiB, licence."""

_BASE = """
name: python
layers: [python]
"""

_FAMILY = """
matrix: {checkpoint: [photo, paint, night, portrait]}
name: "a1111-{{ checkpoint }}"
base: oci:base:python:latest
layers: [webui, clip, vae, detail, "{{ checkpoint }}", worker]
config: {cmd: [/opt/worker/start.sh]}
"""

_STUDIO = """
name: studio
base: oci:base:python:latest
layers: [webui, clip, photo, paint, night, portrait, vae, ink, detail, worker]
config: {cmd: [/opt/worker/start.sh]}
"""

_INK = """
name: ink-only
base: oci:base:python:latest
layers: [webui, clip, paint, ink, worker]
config: {cmd: [/opt/worker/start.sh]}
"""

_BARE = """
name: bare
base: oci:base:python:latest
layers: [webui, photo]
"""


def create(root: Path) -> None:
    """Make the project in `root`, built and with an OCI layout for its base."""
    demoproject.create(root)
    for path in (*(root / "recipes").iterdir(), *(root / "models").iterdir()):
        path.unlink()
    source = random.Random(8)  # noqa: S311  # the same bytes on every machine is the point
    for name, (_, size, _) in _MODELS.items():
        metadata = {"modelspec.title": name}
        demoproject.write_safetensors(root / "models" / f"{name}.safetensors", metadata, size * _MIB, source)
    (root / "python.bin").write_bytes(source.randbytes(48 * _MIB))
    _write(root / "layers" / "demo.yaml", _layers((root / "layers" / "demo.yaml").read_text(encoding="utf-8")))
    with _environment(root):
        _write(root / "recipes" / "base.yaml", _BASE + "tags: [latest]\n")
        for words in (["lock"], ["push", "oci:base"]):
            layerbuild(root, *words)
        (root / "recipes" / "base.yaml").unlink()
        for name, text in {"family": _FAMILY, "studio": _STUDIO, "ink-only": _INK, "bare": _BARE}.items():
            _write(root / "recipes" / f"{name}.yaml", text)
        for words in (["lock"], ["build"], ["report", "--html", "report.html"]):
            layerbuild(root, *words)


def _layers(demo: str) -> str:
    """The demo's snapshot, webui and worker; models of our own, and what the base is made of."""
    kept = demo[demo.index("clip:") :]
    models = "".join(
        f"{name}:\n  kind: model\n  type: {kind}\n  source: file:models/{name}.safetensors\n"
        + (f"  licence: {licence}\n" if licence else "")
        for name, (kind, _, licence) in _MODELS.items()
    )
    return f"{models}\npython:\n  kind: files\n  files: {{/usr/lib/python3/python.bin: file:python.bin}}\n\n{kept}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@contextmanager
def _environment(root: Path) -> Iterator[None]:
    """A store of its own, and the project's directory."""
    before, place = dict(os.environ), Path.cwd()
    os.environ.pop("CI", None)
    os.environ["LAYERBUILD_STORE"] = str(root / ".store")
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)


def layerbuild(root: Path, *words: str) -> None:
    """Run a command.

    Raises:
        RuntimeError: it failed.
    """
    result = CliRunner().invoke(group, ["--quiet", "-C", str(root), *words])
    if result.exception is not None:
        raise RuntimeError(f"layerbuild {' '.join(words)} failed: {result.exception}")


def photograph(page: Path, picture: Path) -> None:
    """What a window of a browser shows of `page`."""
    from selenium import webdriver  # noqa: PLC0415  # only for the picture
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"):
            options.add_argument(f"--{flag}")
        for flag in ("disable-background-networking", "disable-component-update", "disable-sync"):
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={profile}")
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1.2, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            driver.get(page.as_uri())
            # Two frames: the matrix is drawn when the first one is due.
            driver.execute_async_script(
                "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(done))"
            )
            driver.save_screenshot(str(picture))
        finally:
            driver.quit()


def main() -> None:
    """Make the picture."""
    if len(sys.argv) > 1:
        create(Path(sys.argv[1]).absolute())
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "studio"
        create(root)
        photograph(root / "report.html", PICTURE)


if __name__ == "__main__":
    main()

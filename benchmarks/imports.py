"""Importing what a webui imports, in a container: without bytecode, with pip's after mtimes were normalised, and with
what layerbuild makes.

    python benchmarks/imports.py                                     torch and gradio from the package index, 5 rounds
    python benchmarks/imports.py --packages gradio==3.41.2 transformers==4.30.2 --modules gradio transformers
    python benchmarks/imports.py --site DIR --modules torch gradio   of packages that were installed there
    python benchmarks/imports.py --more                              and what else might make a start faster

All are the same packages at the same path in the same container without a network, on a base of this machine's
own programs and of a Python of the version asked for; in each round each has its turn. The page cache is warm,
unless --cold drops it before each start (root; slows down everybody on the machine). The clock runs in
the container, from before the first import to after the last.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import harness
from layerbuild.bytecode import Compiler, Interpreter, find
from layerbuild.model import MTIME
from layerbuild.pyc import cached_path

PACKAGES = (
    "torch==1.12.1",
    "gradio==3.41.2",
    "transformers==4.30.2",
    "numpy==1.26.4",
    "starlette<0.40",
    "pydantic<2.11",
)
MODULES = ("torch", "gradio")
SITE = "/opt/site"
_CLOCK = (
    "import time; t, c = time.perf_counter(), time.process_time(); import {}; "
    "print(time.perf_counter() - t, time.process_time() - c)"
)
_DROPPED = ("tests", "docs", "doc", "examples")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to start.

    Attributes:
        site: directory of the packages.
        flags, environment: of Python.
        before: what it runs first.
        writable: whether Python may write there; what it wrote is gone at the next start.
    """

    site: Path
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    writable: bool = False


class Container:
    """podman, with an empty image on which this machine's programs are mounted.

    Args:
        directory: for its storage; of a short path.
    """

    def __init__(self, directory: Path, interpreter: Interpreter) -> None:
        self._podman = ["podman", "--root", str(directory / "root"), "--runroot", str(directory / "run")]
        self._podman += ["--runtime", "runc"]
        root = directory / "rootfs"
        mounts = []
        for name in ("usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32"):
            here = Path("/", name)
            if here.is_symlink():
                root.mkdir(exist_ok=True)
                (root / name).symlink_to(here.readlink())
            elif here.is_dir():
                mounts.append(f"{here}:{here}:ro")
        self._python = interpreter.path.resolve()
        prefix = self._python.parents[1]
        if not prefix.is_relative_to("/usr"):
            mounts.append(f"{prefix}:{prefix}:ro")
        (root / "tmp").mkdir(parents=True)
        self._mounts = [option for mount in mounts for option in ("-v", mount)]
        self._root = root

    def start(self, variant: Variant, modules: Sequence[str]) -> tuple[float, float]:
        """Seconds that the imports take: by the clock, and of processor time."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        environment = {"PYTHONPATH": SITE, "HOME": "/tmp", "GRADIO_ANALYTICS_ENABLED": "False", **variant.environment}
        command = [*self._podman, "run", "--rm", "--network=none", *limits, *self._mounts]
        command += ["-v", f"{variant.site}:{SITE}:{'O' if variant.writable else 'ro'}"]
        command += [option for name, value in environment.items() for option in ("-e", f"{name}={value}")]
        command += ["--rootfs", str(self._root), str(self._python), *variant.flags]
        command += ["-c", variant.before + _CLOCK.format(", ".join(modules))]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise harness.Failed("the container", f"ended with {done.returncode}", done.stderr.decode()[-2000:])
        seconds, processor = done.stdout.split()[-2:]
        return float(seconds), float(processor)


def install(interpreter: Interpreter, packages: Sequence[str], site: Path) -> None:
    """The packages without bytecode, as pip installs them."""
    options = ["--quiet", "--no-compile", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run([str(interpreter.path), "-m", "pip", "install", *options, *packages], check=True)


def copy(source: Path, target: Path, dropped: Sequence[str] = ()) -> Path:
    """The packages once more, sources as hard links."""
    ignored = shutil.ignore_patterns("__pycache__", *dropped)
    return Path(shutil.copytree(source, target, copy_function=os.link, symlinks=True, ignore=ignored))


def age(site: Path) -> None:
    """Gives every file the time that layers give it."""
    for path in site.rglob("*"):
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)


def compile_default(interpreter: Interpreter, site: Path) -> None:
    """What `pip install` would leave: bytecode that names its source's time."""
    command = [str(interpreter.path), "-m", "compileall", "-q", "-j", "0", "-s", str(site), "-p", SITE, str(site)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


def compile_unchecked(interpreter: Interpreter, site: Path) -> tuple[float, int]:
    """What layerbuild makes. Gives its seconds and bytes."""
    begun, size = time.perf_counter(), 0
    sources = sorted(path for path in site.rglob("*.py") if path.is_file())
    with Compiler(interpreter) as compiler:
        images = (f"{SITE}/{path.relative_to(site)}" for path in sources)
        made = compiler.compile_all((path.read_bytes(), image) for path, image in zip(sources, images, strict=True))
        for path, compiled in zip(sources, made, strict=True):
            if compiled.data is not None:
                cached = Path(cached_path(str(path), interpreter.tag))
                cached.parent.mkdir(exist_ok=True)
                cached.write_bytes(compiled.data)
                size += len(compiled.data)
    return time.perf_counter() - begun, size


def variants(source: Path, work: Path, interpreter: Interpreter, more: Sequence[str]) -> dict[str, Variant]:
    """The ways to start, the one without bytecode first; with modules in `more`, what else might help them."""
    age(source)
    none = copy(source, work / "none")
    void = copy(source, work / "void")
    # As they were when pip compiled them: another time than the layer gives them.
    for path in void.rglob("*.py"):
        os.utime(path, (MTIME + 1, MTIME + 1))
    compile_default(interpreter, void)
    age(void)
    ours = copy(source, work / "ours")
    seconds, size = compile_unchecked(interpreter, ours)
    print(f"compiled {size / 1e6:.0f} MB of bytecode in {seconds:.0f} s")
    found = {
        "no bytecode": Variant(site=none),
        "pip's, mtimes normalised": Variant(site=void),
        "unchecked-hash": Variant(site=ours),
    }
    if more:
        found |= others(none, ours, work, interpreter, more)
    return found


def others(none: Path, ours: Path, work: Path, interpreter: Interpreter, modules: Sequence[str]) -> dict[str, Variant]:
    """What else might help, each beside unchecked-hash alone."""
    less = copy(ours, work / "less", _DROPPED)
    compile_unchecked(interpreter, less)
    ordered = copy(ours, work / "ordered")
    first_use(interpreter, ours, ordered, modules)
    fonts = Path(shutil.copytree(ours, work / "fonts", copy_function=os.link, symlinks=True))
    environment = {**os.environ, "PYTHONPATH": str(ours), "MPLCONFIGDIR": str(fonts / ".matplotlib")}
    command = [str(interpreter.path), "-c", "import matplotlib.font_manager"]
    subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL)
    quiet = {"PYTHONDONTWRITEBYTECODE": "1"}
    return {
        "tests and docs dropped": Variant(site=less),
        "files in the order of first use": Variant(site=ordered),
        "PYTHONDONTWRITEBYTECODE=1": Variant(site=ours, environment=quiet),
        "-X frozen_modules=on": Variant(site=ours, flags=("-X", "frozen_modules=on")),
        "SETUPTOOLS_USE_DISTUTILS=stdlib": Variant(site=ours, environment={"SETUPTOOLS_USE_DISTUTILS": "stdlib"}),
        "matplotlib's font cache": Variant(site=fonts, environment={"MPLCONFIGDIR": f"{SITE}/.matplotlib"}),
        "no garbage collection": Variant(site=ours, before="import gc; gc.disable(); "),
        "no bytecode, written at each start": Variant(site=none, writable=True),
        "no bytecode, PYTHONDONTWRITEBYTECODE=1": Variant(site=none, writable=True, environment=quiet),
    }


def first_use(interpreter: Interpreter, compiled: Path, site: Path, modules: Sequence[str]) -> None:
    """Copies bytecode to `site`, what the imports read first in the order in which they read it."""
    script = f"import {', '.join(modules)}, sys; print(*(getattr(m, '__cached__', None) for m in sys.modules.values()))"
    environment = {**os.environ, "PYTHONPATH": str(compiled)}
    told = subprocess.run([str(interpreter.path), "-c", script], env=environment, capture_output=True, check=True)
    used = [Path(word) for word in told.stdout.decode().split() if word.startswith(str(compiled))]
    for path in dict.fromkeys([*used, *sorted(compiled.rglob("*.pyc"))]):
        target = site / path.relative_to(compiled)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())


def drop_page_cache() -> None:
    """Has everything read from disk anew."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.10", help="version of the image's Python")
    parser.add_argument("--site", type=Path, help="packages that were installed without bytecode")
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    parser.add_argument("--modules", nargs="+", default=MODULES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each start")
    parser.add_argument("--more", action="store_true", help="also what else might help")
    arguments = parser.parse_args()
    interpreter = find(arguments.python)
    # Sources are hard links, which do not leave their disk; podman takes no long path.
    beside = arguments.site.parent if arguments.site else None
    with tempfile.TemporaryDirectory(dir=beside) as name, tempfile.TemporaryDirectory(prefix="lb-") as short:
        work = Path(name)
        source = work / "site"
        if arguments.site:
            copy(arguments.site, source)
        else:
            install(interpreter, arguments.packages, source)
        found = variants(source, work, interpreter, arguments.modules if arguments.more else ())
        container = Container(Path(short), interpreter)
        taken: dict[str, list[tuple[float, float]]] = {what: [] for what in found}
        for number in range(arguments.rounds + 1):
            for what, variant in found.items():
                if arguments.cold:
                    drop_page_cache()
                start = container.start(variant, arguments.modules)
                # The first round warms up.
                if number:
                    taken[what].append(start)
    report(taken)


def report(taken: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Prints medians, and their ratio to the first one. Processor time tells more where others use the machine too."""
    rows = []
    bases: list[float] = []
    for what, starts in taken.items():
        medians = [statistics.median(values) for values in zip(*starts, strict=True)]
        bases = bases or medians
        fastest, slowest = (by(seconds for seconds, _ in starts) for by in (min, max))
        cells = [f"{medians[0]:.2f} s", f"{fastest:.2f} to {slowest:.2f} s", f"{medians[0] / bases[0]:.2f}"]
        rows.append([what, *cells, f"{medians[1]:.2f} s", f"{medians[1] / bases[1]:.2f}"])
    print(harness.table(["imports", "median", "range", "ratio", "processor", "ratio"], rows))


if __name__ == "__main__":
    main()

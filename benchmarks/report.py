"""Makes docs/performance.md from docs/performance.json: this file's words and the run's numbers.

python benchmarks/run.py --json docs/performance.json
python benchmarks/report.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from harness import table
from results import Results
from tables import GIB, absolute_tables, in_gib, left_out, ratio_tables

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"

FRAME = """\
# Performance

<!-- Made by benchmarks/report.py from performance.json. Change these, not this page. -->

layerbuild beside the tools that a user would pick instead: the same bytes, the same registry on the same machine, in
turn. Ratios come first, for they hold elsewhere; seconds belong to the machine.

    make bench                                                    # everything, about 20 minutes; needs root
    .venv/bin/python benchmarks/run.py --size 256MiB --rounds 1   # a look, in two or three minutes

{machine}

## Ratios

{ratios}

## How it is measured

- **The model** is a safetensors file of {size} of random fp16 weights, normally distributed, which compress by about
  8 % as real ones do. It lies on the disk and in the page cache before each step, and nothing waits to be written.
- **Rounds.** There are {rounds}. In each, every tool has its turn, and another one comes first. Seconds are medians. A
  ratio is taken within a round, and then the median of the rounds; beside it stand the smallest and the largest.
- **Registry.** Each tool gets an empty docker-registry of its own, over loopback and plain HTTP. It hashes what it
  receives on the same cores, and takes most of the time of a first push, whoever sends.
- **Bytes.** Read is what read calls returned, from the page cache or not, code and libraries included (Python receives
  from the network by other calls); written is what went to the disk (`/proc/PID/io`, with all child processes). Sent is
  what a proxy before the registry saw, in a round of its own that is not timed and has a quarter of the model.
- **Memory** is the peak of the largest process. Below 10 MiB processes are not told apart.
- **A second image** has the same model and other small files. Its seconds are those of making and sending it. While
  layerbuild pushes one, the model's file is away: a read would fail. `elsewhere` is a push from another machine: an
  empty store, and a lock with receipts.
- **Hashing** is `layerbuild build` with a lock and an empty store. It takes two digests: that of the file, which is
  held against the lock, and that of the layer. The pass is the command without its start, which is measured with a file
  of 64 KiB.
- **Pulling** is `podman pull` into an empty storage: fetched, checked, decompressed and unpacked.
  The layers have a quarter of the model's size; zstd is at level 3, gzip at level 6.
- **Many images** are planned and composed from a lock and an empty store, after their models were deleted
  (`benchmarks/scale.py`). They are pushed (`benchmarks/scalepush.py`) with their models there, then with every config
  **changed** and the models deleted, then unchanged. The registry alone takes the same configs and manifests from a
  small loop, with as many connections; 80 % of its rate will do where that is below 50.

Each tool does what it does best:

- **curl -T** is the floor: it sends a tar that is ready, with a digest that is known. There is no image.
- **layerbuild** has the lock, and has never seen the model: it checks, hashes and sends in one pass. With the **layer
  known** it has a receipt, and only sends. **From a server** the model comes over HTTP from this machine, and is kept
  in the store; with **--no-store** it is not.
- **skopeo copy** copies from an OCI layout that is ready, uncompressed and with `--preserve-digests`; otherwise it
  would compress first.
- **oras** is the PyPI library's own `push()` of a ready tar. It makes an artifact, not an image.
- **umoci + skopeo**: `umoci insert` makes a layout, and skopeo copies from it. A second image starts from the model's
  layer.
- **buildah**: a Dockerfile of two `COPY` lines, `bud --layers` and `push`, on the overlay driver.

## Figures

{figures}
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(Results.from_json(json.loads(DATA.read_text(encoding="utf-8")))), encoding="utf-8")


def page(results: Results) -> str:
    """The whole page."""
    return FRAME.format(
        machine=machine(results),
        ratios=sections(ratio_tables(results)),
        figures=sections(absolute_tables(results)),
        size=in_gib(results.size),
        rounds=results.rounds,
    )


def for_terminal(results: Results) -> str:
    """Every table with its title, ratios first."""
    found = [f"{title}\n\n{text}" for title, text in [*ratio_tables(results), *absolute_tables(results)]]
    return "\n\n".join([*found, *left_out(results)])


def sections(tables: Iterable[tuple[str, str]]) -> str:
    """Each table below a heading."""
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in tables)


def machine(results: Results) -> str:
    """When, where and with what; and who is missing."""
    about = results.machine
    what = (
        f"Measured on {results.date}: {about['cores']} cores of {about['processor']}, "
        f"{about['memory'] / GIB:.0f} GiB of memory, {about['kernel']}, Python {about['python']}."
    )
    versions = table(["tool", "version"], [[name, version or "missing"] for name, version in results.versions.items()])
    return "\n\n".join([what, versions, *left_out(results)])


if __name__ == "__main__":
    main()

"""What things cost, for estimates: rates and seconds with where each number is from."""

from __future__ import annotations

from layerbuild.audit.findings import Cost, When

HASH_RATE = 125e6
"""Bytes per second of hashing from a cloud disk, which reads 100 to 150 MB in a second. Users report 100 to 150 s
for a model on slow disks and up to 10 minutes on cloud volumes (webui issues 6738, 7388 and pull request 7512)."""

DOWNLOAD_RATE = 50e6
"""Bytes per second from the internet: an assumption."""

INFLATE_RATE = 160e6
"""Bytes per second that one core makes of gzip (measured on the project's reference machine)."""

ZSTD_RATE = 800e6
"""Bytes per second that one core makes of zstd: an assumption, about five times gzip."""

HF_MISS = 23.0
"""Seconds for each file that is neither cached nor marked absent, without network (measured)."""

HF_ONLINE = 47.0
"""Seconds of a start without network and without HF_HUB_OFFLINE, everything cached; 0.8 to 2.2 with it (measured)."""

HF_HEAD = 0.2
"""Seconds of one request to the Hub where there is a network: an assumption."""

BYTECODE = 8.0
"""Seconds more to import torch and gradio without valid bytecode: 15.6 s against 7.5 s (measured)."""

BYTECODE_BYTES = 200e6
"""Bytes of the sources to which those seconds belong (207 MB of bytecode, measured)."""

COMPILE_RATE = 8e6
"""Bytes of sources that Python compiles in a second: 36 MB in 4.5 s (benchmarks/imports.py). Of installed packages
about a third is imported, of the webui's own tree nearly all."""

SD2_TRIAL = 5.0
"""Seconds of the trial run of the UNet by which an SD2 checkpoint without a .yaml is told apart: an assumption."""

GIT_FETCH = 5.0
"""Seconds of `git fetch` for one checkout at start: an assumption."""

PREPARE = 10.0
"""Seconds that launch.py spends on git, pip and a torch of its own before the webui: an assumption."""


def hashing(size: int, when: When = "start") -> Cost:
    """Hashing `size` bytes."""
    return Cost(when=when, seconds=size / HASH_RATE, hashed=size)


def downloading(size: int, when: When = "use") -> Cost:
    """Downloading `size` bytes."""
    return Cost(when=when, seconds=size / DOWNLOAD_RATE, downloaded=size)

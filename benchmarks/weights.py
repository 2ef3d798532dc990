"""Files as models are: safetensors of fp16 weights, in any size, from a seed."""

from __future__ import annotations

import json
import random
import struct
from functools import cache
from pathlib import Path
from statistics import NormalDist

_BLOCK = 1024 * 1024
_SPREAD = 0.02
"""Standard deviation of the weights, as layers of a UNet have it."""


def model(path: Path, size: int, seed: int = 1) -> None:
    """A safetensors file with one tensor of `size` bytes of normally distributed fp16 numbers.

    It compresses by about 8 %, as real ones do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    with path.open("wb") as file:
        file.write(header(size, f"bench {seed}"))
        for start in range(0, size, _BLOCK):
            file.write(block(source, min(_BLOCK, size - start)))


def sparse(path: Path, size: int) -> None:
    """A file of the same shape whose weights are zero and take no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header(size, "sparse"))
        file.truncate(file.tell() + size)


def header(size: int, title: str) -> bytes:
    """What stands before the weights in a safetensors file."""
    tensor = {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {"modelspec.title": title}, "model.weight": tensor}, separators=(",", ":"))
    data = text.encode() + b" " * (-len(text) % 8)
    return len(data).to_bytes(8, "little") + data


def block(source: random.Random, size: int) -> bytes:
    """`size` bytes of fp16 numbers, little-endian.

    Of such a number the low byte is as good as even, and the high one (sign, exponent, two bits) is not.
    """
    data = bytearray(size)
    data[0::2] = source.randbytes((size + 1) // 2)
    data[1::2] = source.randbytes(size // 2).translate(_high_bytes())
    return bytes(data)


@cache
def _high_bytes() -> bytes:
    """256 high bytes, each as often as the normal distribution has it."""
    normal = NormalDist(0, _SPREAD)
    # Of a positive number; at 0x7b the largest that is finite.
    starts = [struct.unpack("<e", bytes([0, high]))[0] for high in range(0x7C)]
    shares = [2 * normal.cdf(value) - 1 for value in starts]
    positive = bytes(max(h for h, share in enumerate(shares) if share <= (i + 0.5) / 128) for i in range(128))
    return positive + bytes(high | 0x80 for high in positive)

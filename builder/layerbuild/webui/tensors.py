"""Whether a safetensors header describes its file: what the reference implementation refuses is refused here.

Format: https://huggingface.co/docs/safetensors, "Format". The rules on tensors are those of the library's
`Metadata::validate`: the tensors cover everything behind the header, without holes and without overlap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from layerbuild.webui.safetensors import MAX_HEADER, PREFIX

BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of one element. Of a type that is not here, only the place in the file is checked."""

_MAX_VALUES = 500_000
"""Values of a header: SDXL's has 30,000. What is parsed takes far more memory than its text."""

_MAX_NUMBER = 2**63
_TEXT = re.compile(rb'"[^"]*"')


class _Fault(Exception):
    """Why a header is none."""


def fault_of_length(prefix: bytes, size: int) -> str | None:
    """Why a file of `size` bytes that begins with `prefix` cannot be one, None if it can."""
    if len(prefix) < PREFIX:
        return f"it has {size} bytes, and a header's length alone takes {PREFIX}"
    length = int.from_bytes(prefix[:PREFIX], "little")
    if length > size - PREFIX:
        return f"its header should have {length} bytes, and {size - PREFIX} are left in the file"
    if not 2 <= length <= MAX_HEADER:
        return f"its header should have {length} bytes; at least 2 and at most {MAX_HEADER} are possible here"
    return None


def fault_of_header(header: bytes, size: int) -> str | None:
    """Why `header` does not describe a file of `size` bytes, None if it does.

    Args:
        header: the JSON, without the 8 bytes before it.
        size: of the whole file, in bytes.
    """
    try:
        _check(_parsed(header), size - PREFIX - len(header))
    except _Fault as fault:
        return str(fault)
    return None


def tensors_of(header: bytes) -> dict[str, Any] | None:
    """What a header holds, with `__metadata__`; None where it is none. Places and shapes are not looked at."""
    try:
        return _parsed(header)
    except _Fault:
        return None


def _parsed(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        _refuse("its header does not begin with '{'")
    # Texts aside, commas and brackets say how many values there are, before any is made.
    plain = header.replace(b"\\\\", b"").replace(b'\\"', b"")
    many = plain.count(b'"') > 2 * _MAX_VALUES
    if many or sum(_TEXT.sub(b"", plain).count(mark) for mark in (b",", b"[", b"{")) > _MAX_VALUES:
        _refuse(f"its header has more than {_MAX_VALUES} values")
    try:
        value = json.loads(header.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        _refuse(f"its header is no JSON: {type(error).__name__}")
    if not isinstance(value, dict):
        _refuse("its header is no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        name = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        _refuse(f"its header has the key {name[:80]!r} twice")
    return value


def _no_number(text: str) -> NoReturn:
    _refuse(f"its header has {text}, which is no JSON")


def _check(header: dict[str, Any], room: int) -> None:
    """Refuses what does not cover exactly the `room` bytes behind the header."""
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse("its '__metadata__' does not map names to texts")
    end = 0
    for (first, last), name in sorted((_place(name, tensor), name) for name, tensor in header.items()):
        if first != end:
            what = "overlap" if first < end else "leave a hole"
            _refuse(f"its tensors {what} at byte {min(first, end)}, before {name[:80]!r}")
        end = last
    if end != room:
        _refuse(f"its tensors take {end} bytes, and behind its header are {room}")


def _place(name: str, tensor: Any) -> tuple[int, int]:
    """Where a tensor lies, in bytes behind the header."""
    if not isinstance(tensor, dict) or tensor.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(f"the tensor {name[:80]!r} has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    if not isinstance(dtype, str) or not _numbers(shape) or not _numbers(offsets) or len(offsets) != 2:
        _refuse(f"the tensor {name[:80]!r} has a dtype, shape or data_offsets of another form")
    first, last = offsets
    if last < first:
        _refuse(f"the tensor {name[:80]!r} ends before it begins")
    if dtype in BITS and _product(shape) * BITS[dtype] != (last - first) * 8:
        _refuse(f"the tensor {name[:80]!r} has {last - first} bytes, which is not {dtype} times its shape")
    return first, last


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_NUMBER for item in value)


def _product(shape: Iterable[int]) -> int:
    product = 1
    for size in shape:
        product *= size
        if product >= _MAX_NUMBER:
            _refuse("a tensor has more elements than can be counted")
    return product


def _refuse(reason: str) -> NoReturn:
    raise _Fault(reason)

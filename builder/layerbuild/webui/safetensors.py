"""The header of a safetensors file, and what the webui keeps of it.

Format: 8 bytes little-endian length n, then n bytes of JSON, then tensors
(https://huggingface.co/docs/safetensors, "Format"). The webui's reading is that of
`modules/sd_models.py:read_metadata_from_safetensors` and `extensions-builtin/Lora/network.py`.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from layerbuild.errors import SourceError

PREFIX = 8
MAX_HEADER = 16 * 1024 * 1024
"""Bytes. The library allows 100 MB; real headers end below 1 MB, and memory stays flat."""

_MAX_DEPTH = 64


def header_length(prefix: bytes) -> int | None:
    """Length of the JSON header by the file's first 8 bytes, None if it cannot be a safetensors file."""
    if len(prefix) < PREFIX:
        return None
    length = int.from_bytes(prefix[:PREFIX], "little")
    return length if 2 <= length <= MAX_HEADER else None


def metadata_of(header: bytes) -> dict[str, Any] | None:
    """The header's `__metadata__`, `{}` where it has none, None if this is no safetensors header."""
    try:
        value = json.loads(header)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    metadata = value.get("__metadata__", {})
    return metadata if isinstance(metadata, dict) and _is_flat(metadata) else None


def stored_metadata(
    metadata: dict[str, Any], model_type: Literal["checkpoint", "lora"], version: tuple[int, ...] | None
) -> dict[str, Any]:
    """What the webui of `version` (None: the newest) stores under `safetensors-metadata`."""
    decoded = {key: _decode(value) for key, value in metadata.items()}
    if model_type == "checkpoint":
        decoded.pop("modelspec.thumbnail", None)
    elif version is not None and version < (1, 9):
        decoded.pop("ssmd_cover_images", None)
    return decoded


def _decode(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return decoded if _is_flat(decoded) else value
    return value


def _is_flat(value: Any) -> bool:
    """Whether `value` is nested at most `_MAX_DEPTH` levels deep: what reads it may go deeper than what writes it."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            item for v in level if isinstance(v, dict | list) for item in (v.values() if isinstance(v, dict) else v)
        ]
        if not level:
            return True
    return False


def invalid(name: str, fault: str | None = None) -> SourceError:
    """The refusal of a file that is called safetensors and is none: the webui fails on it at every start.

    Args:
        fault: why it is none, where that is known.
    """
    return SourceError(
        f"{name} is not a valid safetensors file",
        cause=fault or "its header does not describe it",
        hint="check the source: an error page, a half upload or a pickle under a wrong name looks like this",
    )

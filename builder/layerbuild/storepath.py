"""Where this machine's store is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs


def store_path(environ: Mapping[str, str]) -> Path:
    """The store's directory, which need not be there yet."""
    named = environ.get("LAYERBUILD_STORE")
    return Path(named).absolute() if named else platformdirs.user_cache_path("layerbuild")

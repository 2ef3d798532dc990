"""Where bytes come from: one module per scheme, and the table that finds it.

A new source is one module with a class that satisfies `base.Source`, and one line here. Modules
are imported when their scheme is first used.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial
from typing import cast

from layerbuild.errors import SourceError
from layerbuild.sources.base import Context, Request, Source, shown
from layerbuild.sources.mirrored import Mirrored, Remote

__all__ = ["SCHEMES", "Context", "Request", "Source", "checked", "is_local", "source_for"]

SCHEMES: dict[str, str] = {
    "file": "layerbuild.sources.file:FileSource",
    "http": "layerbuild.sources.web:WebSource",
    "https": "layerbuild.sources.web:WebSource",
    "hf": "layerbuild.sources.huggingface:HuggingFaceSource",
    "civitai": "layerbuild.sources.civitai:CivitaiSource",
    "git+file": "layerbuild.sources.git:GitSource",
    "git+http": "layerbuild.sources.git:GitSource",
    "git+https": "layerbuild.sources.git:GitSource",
    "oci": "layerbuild.sources.oci:OciSource",
    "built+http": "layerbuild.sources.built:BuiltSource",
    "built+https": "layerbuild.sources.built:BuiltSource",
}
"""Scheme -> `module:Class`."""

_OBJECTS = "layerbuild.sources.objects:ObjectSource"

SCHEMES |= dict.fromkeys(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"), _OBJECTS)
SCHEMES |= dict.fromkeys(("dropbox", "ftp", "hdfs", "lakefs", "oss", "sftp", "smb", "webhdfs"), _OBJECTS)
# fsspec knows more: those that read this machine or its memory, chains of others, archives, and notebooks.

_LOCAL = ("file", "git+file")
"""Schemes of what only this machine has."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def source_for(uri: str, context: Context) -> Source:
    """The source that understands `uri`, with the mirrors that its pins name.

    Raises:
        SourceError: no source does; the hint names the schemes that there are.
    """
    source = _source(uri, context)
    if isinstance(source, Remote):
        return Mirrored(source, context, partial(_source, context=context))
    return source


def checked(uri: str, context: Context) -> str:
    """`uri` as it may stand in a lock; sources of this machine are taken as they are.

    Raises:
        SourceError: it may not, because it holds a secret, or no source understands it.
    """
    source = _source(uri, context)
    return source.checked(uri) if isinstance(source, Remote) else uri


def _source(uri: str, context: Context) -> Source:
    scheme = _scheme(uri)
    if scheme not in SCHEMES:
        raise SourceError(
            f"{shown(uri)}: " + (f"there is no source for {scheme}:" if scheme else "it has no scheme"),
            cause="known are " + ", ".join(f"{name}:" for name in SCHEMES),
            hint="use one of them; a path on this machine is written file:PATH",
        )
    module, _, name = SCHEMES[scheme].partition(":")
    factory = cast("Callable[[Context], Source]", getattr(importlib.import_module(module), name))
    return factory(context)


def is_local(uri: str) -> bool:
    """Whether only this machine can open `uri`."""
    return _scheme(uri) in _LOCAL


def _scheme(uri: str) -> str:
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""

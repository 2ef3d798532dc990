"""Which files' contents an audit needs, decided by name and size while a layer is read."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection

from layerbuild.audit.limits import MAX_CACHE

PYC_HEAD = 16
"""Bytes before a .pyc's code (PEP 552)."""

_KIB = 1024
_NAMES = {
    "cache.json": MAX_CACHE,
    "config.json": 256 * _KIB,
    "install.py": 64 * _KIB,
    "version.txt": 64,
    "webui-user.sh": 64 * _KIB,
}
_HEADS = {"CHANGELOG.md": 64 * _KIB}
_SCRIPT = 64 * _KIB
_REF = re.compile(r"(?:^|/)(?:models|datasets)--[^/]+/refs/")

_SECRETS = re.compile(
    r"(?:^|/)(?:"
    r"\.?huggingface/(?:token|stored_tokens)"
    r"|\.netrc|\.pypirc|\.git-credentials|\.docker/config\.json|\.dockercfg"
    r"|\.config/(?:git/credentials|containers/auth\.json|rclone/rclone\.conf|gcloud/application_default_credentials\.json)"
    r"|\.ssh/id_[a-z0-9_]+|\.aws/credentials|\.kaggle/kaggle\.json"
    r"|\.civitai(?:[/_-][\w.-]*)?|\.config/civitai[\w./-]*|civitai[_-]?(?:api[_-]?key|token)(?:\.txt)?"
    r")$"
)


def is_secret_path(path: str) -> bool:
    """Whether a file of that name holds credentials."""
    return len(path) < 512 and _SECRETS.search(path) is not None


class Interest:
    """Decides by path.

    Args:
        words: of the image's command line: scripts that it starts.
        cache: path of the hash cache, where the environment names one.
    """

    def __init__(self, words: Collection[str] = (), *, cache: str = "") -> None:
        self._cache = posixpath.basename(cache)
        self._scripts = {posixpath.basename(word) for word in words if len(word) < 256} - {""}

    def bytes_of(self, path: str, size: int) -> int:
        """Leading bytes of a file to keep, 0 for most files."""
        name = posixpath.basename(path)
        if name.endswith(".pyc"):
            return min(size, PYC_HEAD)
        if name in _HEADS:
            return min(size, _HEADS[name])
        limit = _NAMES.get(name, 0)
        if name.endswith(".sh") or name in self._scripts:
            limit = max(limit, _SCRIPT)
        if name == self._cache:
            limit = MAX_CACHE
        if path == "etc/passwd" or _REF.search(path):
            limit = max(limit, 64 * _KIB)
        return size if size <= limit else 0

"""As whom a container runs: the config's `User` (OCI image-spec 1.1, config.md) by the image's own /etc/passwd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerbuild.audit.view import ImageView

_LARGEST_PASSWD = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of the image."""

    uid: int
    gid: int
    home: str


def account(view: ImageView) -> Account | None:
    """The user that the container runs as, None where the image does not tell."""
    name, _, group = view.runtime.user.partition(":")
    name = name or "0"
    gid = int(group) if _is_id(group) else None
    for line in _passwd(view):
        fields = line.split(":")
        if len(fields) >= 6 and name in (fields[0], fields[2]) and _is_id(fields[2]) and _is_id(fields[3]):
            return Account(uid=int(fields[2]), gid=int(fields[3]) if gid is None else gid, home=fields[5] or "/")
    if name in ("0", "root"):
        return Account(uid=0, gid=gid or 0, home="/root")
    return Account(uid=int(name), gid=gid or 0, home="/") if _is_id(name) else None


def _passwd(view: ImageView) -> list[str]:
    node = view.files.file("/etc/passwd")
    if node is None or node.size > _LARGEST_PASSWD:
        return []
    return (view.files.read(node) or b"").decode("utf-8", "replace").splitlines()


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10

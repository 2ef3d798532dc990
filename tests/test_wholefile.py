"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerbuild import wholefile


def test_what_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x"
    wholefile.write(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    wholefile.write(path, b"two")
    assert path.read_bytes() == b"two" and path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_one_is_not_written_over_another(tmp_path: Path) -> None:
    path = tmp_path / "x"
    wholefile.write(path, b"one", new=True)
    with pytest.raises(FileExistsError):
        wholefile.write(path, b"two", new=True)
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    wholefile.write(path, b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        wholefile.write(path, b"two")
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]

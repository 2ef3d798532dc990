"""`file:` against a real directory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from layerbuild.errors import ContentMismatch, NotFound, SourceError
from layerbuild.model import Content, PinnedFile
from layerbuild.sources import Request, source_for
from layerbuild.sources.base import Context
from layerbuild.wire import BLOCK

DATA = os.urandom(BLOCK + 1234)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def model(context: Context) -> Path:
    path = context.project / "models" / "sd.safetensors"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


def test_a_file(context: Context, model: Path) -> None:
    source = source_for("file:models/sd.safetensors", context)
    pin = source.resolve(Request(uri="file:models/sd.safetensors", sha256=SHA256.upper(), size=len(DATA)))
    assert pin.source == "file:models/sd.safetensors"
    assert pin.files == (PinnedFile(path="sd.safetensors", content=Content(size=len(DATA), sha256=SHA256)),)
    chunks = list(source.open(pin, pin.files[0]))
    assert b"".join(chunks) == DATA
    assert max(map(len, chunks)) <= BLOCK


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (5, None), (BLOCK, 7), (5, 0), (len(DATA), None), (5, 10**9)])
def test_ranges(context: Context, model: Path, offset: int, length: int | None) -> None:
    source = source_for("file:models/sd.safetensors", context)
    pin = source.resolve(Request(uri="file:models/sd.safetensors"))
    stop = None if length is None else offset + length
    assert b"".join(source.open(pin, pin.files[0], offset=offset, length=length)) == DATA[offset:stop]


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}"])
def test_absolute_and_parent_paths_are_kept_as_written(context: Context, model: Path, form: str) -> None:
    uri = form.format(model)
    pin = source_for(uri, context).resolve(Request(uri=uri))
    assert pin.source == uri
    assert pin.files[0].content.sha256 == SHA256
    relative = "file:../project/models/sd.safetensors"
    assert source_for(relative, context).resolve(Request(uri=relative)).source == relative


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 1}])
def test_another_content_than_declared(context: Context, model: Path, wrong: dict[str, object]) -> None:
    request = Request(uri="file:models/sd.safetensors", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ContentMismatch, match="not what is declared"):
        source_for(request.uri, context).resolve(request)


@pytest.mark.parametrize("uri", ["file:missing", "file:models/missing", "file:dangling"])
def test_nothing_there(context: Context, model: Path, uri: str) -> None:
    (context.project / "dangling").symlink_to("nowhere")
    with pytest.raises(NotFound, match="does not exist") as caught:
        source_for(uri, context).resolve(Request(uri=uri))
    assert caught.value.hint


@pytest.mark.parametrize("uri", ["file:", "file://otherhost/x", "file://host", "file:a\0b"])
def test_not_a_path(context: Context, uri: str) -> None:
    with pytest.raises(SourceError):
        source_for(uri, context).resolve(Request(uri=uri))


def test_no_other_kinds_of_file(context: Context) -> None:
    os.mkfifo(context.project / "pipe")
    with pytest.raises(SourceError, match="neither a file nor a directory"):
        source_for("file:pipe", context).resolve(Request(uri="file:pipe"))


@pytest.mark.parametrize("damage", [DATA + b"x", DATA[:-1], b""])
def test_a_file_that_changed_is_noticed(context: Context, model: Path, damage: bytes) -> None:
    source = source_for("file:models/sd.safetensors", context)
    pin = source.resolve(Request(uri="file:models/sd.safetensors"))
    model.write_bytes(damage)
    with pytest.raises(ContentMismatch, match="bytes"):
        list(source.open(pin, pin.files[0]))
    model.unlink()
    with pytest.raises(NotFound):
        list(source.open(pin, pin.files[0]))


def test_a_directory(context: Context) -> None:
    top = context.project / "snapshot"
    for name in ("z.txt", "a/b/c.txt", "a/d.bin", "a-b"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (context.project / "blob").write_text("linked")
    (top / "link.txt").symlink_to("../blob")
    source = source_for("file:snapshot", context)
    pin = source.resolve(Request(uri="file:snapshot"))
    assert [f.path for f in pin.files] == ["a-b", "a/b/c.txt", "a/d.bin", "link.txt", "z.txt"]
    by_name = {f.path: b"".join(source.open(pin, f)).decode() for f in pin.files}
    assert by_name.pop("link.txt") == "linked"
    assert all(text == name for name, text in by_name.items())
    chosen = source.resolve(Request(uri="file:snapshot", files=("*.txt", "!a/*")))
    assert [f.path for f in chosen.files] == ["link.txt", "z.txt"]
    with pytest.raises(NotFound, match=r"nothing\.txt"):
        source.resolve(Request(uri="file:snapshot", files=("nothing.txt",)))


def test_bad_directories(context: Context) -> None:
    top = context.project / "dir"
    top.mkdir()
    source = source_for("file:dir", context)
    with pytest.raises(NotFound, match="no files"):
        source.resolve(Request(uri="file:dir"))
    (top / "back\\slash").write_text("x")
    with pytest.raises(SourceError, match="no layer may hold"):
        source.resolve(Request(uri="file:dir"))
    (top / "good").write_text("x")
    assert [f.path for f in source.resolve(Request(uri="file:dir", files=("good",))).files] == ["good"]
    (top / "loop").symlink_to(".")
    with pytest.raises(SourceError, match="link to a directory"):
        source.resolve(Request(uri="file:dir", files=("!back*",)))
    with pytest.raises(SourceError, match="is a directory"):
        source.resolve(Request(uri="file:dir", sha256=SHA256))


def test_a_name_that_is_not_unicode(context: Context) -> None:
    (context.project / "dir").mkdir()
    (context.project / "dir" / os.fsdecode(b"\xff.txt")).touch()
    with pytest.raises(SourceError, match="no layer may hold"):
        source_for("file:dir", context).resolve(Request(uri="file:dir"))


def test_files_belong_to_directories(context: Context, model: Path) -> None:
    with pytest.raises(SourceError, match="is one file"):
        source_for("file:models/sd.safetensors", context).resolve(
            Request(uri="file:models/sd.safetensors", files=("x",))
        )


def test_a_pin_cannot_lead_out_of_its_directory(context: Context, model: Path) -> None:
    source = source_for("file:models", context)
    pin = source.resolve(Request(uri="file:models"))
    forged = PinnedFile(path="../../secret", content=pin.files[0].content)
    with pytest.raises(SourceError, match="no layer may hold"):
        list(source.open(pin, forged))

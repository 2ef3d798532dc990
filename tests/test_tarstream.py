"""Tar bytes: frozen, read right by other tools, and the same from every offset."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import SHA, reader, sha256
from layerbuild.errors import LayerbuildError
from layerbuild.model import MTIME, Content, Entry
from layerbuild.tarstream import BLOCK, TarStream, headers

GIB = 1024**3
BIG = 8 * GIB

CONTENTS = {
    f"sha256:{SHA['a']}": b"a" * 1000,
    f"sha256:{SHA['b']}": bytes(range(256)) * 2,
    "git:" + "c" * 40: b"c",
    f"sha256:{SHA['d']}": b"",
}
A = Content(size=1000, sha256=SHA["a"])
B = Content(size=512, sha256=SHA["b"])
C = Content(size=1, git_blob="c" * 40)
EMPTY = Content(size=0, sha256=SHA["d"])

P100 = "d" * 49 + "/" + "n" * 50
P255 = "p" * 77 + "/" + "q" * 77 + "/" + "n" * 99
P300 = "/".join(["x" * 99] * 3)

SAMPLES: dict[str, list[Entry]] = {
    "nothing": [],
    "file": [Entry(path="a", type="file", mode=0o644, content=A)],
    "data": [Entry(path="a", type="file", mode=0o755, data=b"made here", uid=1000, gid=2097151)],
    "empty": [
        Entry(path="a", type="file", mode=0o644, content=EMPTY),
        Entry(path="b", type="file", mode=0o600, data=b""),
    ],
    "block": [Entry(path="a", type="file", mode=0o644, content=B)],
    "tree": [
        Entry(path="opt", type="directory", mode=0o755),
        Entry(path="opt/a", type="file", mode=0o644, content=A),
        Entry(path="opt/b", type="symlink", mode=0o777, target="a"),
        Entry(path="opt/c", type="file", mode=0o644, content=C),
    ],
    "long-100": [Entry(path=P100, type="file", mode=0o644, content=C)],
    "long-101": [Entry(path=P100 + "n", type="file", mode=0o644, content=C)],
    "long-255": [Entry(path=P255, type="file", mode=0o644, content=C)],
    "long-300": [Entry(path=P300, type="file", mode=0o644, content=C)],
    "long-directory": [
        Entry(path=P300, type="directory", mode=0o700),
        Entry(path="e" * 100, type="directory", mode=0o755),
    ],
    "no-slash": [Entry(path="n" * 150, type="file", mode=0o644, content=C)],
    "unicode": [Entry(path="models/ünï ✓/模型", type="file", mode=0o644, content=C)],
    "unicode-link": [Entry(path="l", type="symlink", mode=0o777, target="ünï/✓")],
    "long-link": [
        Entry(path="l100", type="symlink", mode=0o777, target="t" * 100),
        Entry(path="l101", type="symlink", mode=0o777, target="t" * 101),
        Entry(path="ü" * 60, type="symlink", mode=0o777, target="/" + "t" * 4000),
    ],
}

GOLDEN = {
    "nothing": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "file": "44acec731066e50d89a0420f9315490e16ee489006f878ec68fde98cf7f827dc",
    "data": "47a2456799d8f3ecc33f652f3373880f5fa401742a06e9629ed6a2c59b0c1e07",
    "empty": "87fb3b40de6c1a6b2093daf2c33060386f2e85bd612eee2a6dfb4ba6f9a46b71",
    "block": "0138189e32dfc43b62e0b700b484b519ffd22b4b0ca791bbd95d2e267398bdc4",
    "tree": "2e9a50e8e56cb560bd40c1fdb93ade241e3d6872bd6c2d5e02c1fa72bc75bf16",
    "long-100": "204b9ba8f22265246361286089cfdd8077687ddf02de3e1485496a20165f64b0",
    "long-101": "538fe9ee2aaed87c68b708e97321d4ce9747eeac12144905ebdbb7f419e2e1e4",
    "long-255": "793ab33defba314ff9bb0f3e9882b7b8ccc41f847da17c05eede57c5f0382c6e",
    "long-300": "11f2a26c64e8ce5c6595aa538a204379dd4194a55c857ab90024849a1751f1f0",
    "long-directory": "e7b93ab7b1918164757384ccd3fa355308c32c8bef805c29634e9be4b9088b50",
    "no-slash": "f7677709153e7e95e4094bd18e58fca92fb0c58746883adc21dd5900e483116a",
    "unicode": "d73628a9d8e17f5a3d48e6fae13524ffa94d237cb7841132f29002a076f1a1f8",
    "unicode-link": "7e6541e6bfdaf140b1398c8054b94d3f21afa440392474e4fc44382dacfe8c28",
    "long-link": "6bd9b19efaeb4971506c535262bf996b52e6d93c89ddb6c73c0c4cd329bc73af",
}


def tar_of(entries: list[Entry]) -> bytes:
    return b"".join(TarStream(entries).read(reader(CONTENTS)))


@pytest.mark.parametrize("name", list(SAMPLES))
def test_the_bytes_are_frozen(name: str) -> None:
    data = tar_of(SAMPLES[name])
    assert sha256(data) == GOLDEN[name], "tar bytes changed: that needs a new TAR_REVISION in model.py"
    assert len(data) == TarStream(SAMPLES[name]).size
    assert len(data) % BLOCK == 0


@pytest.mark.parametrize("name", list(SAMPLES))
def test_python_reads_what_was_meant(name: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(SAMPLES[name]))) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [e.path for e in SAMPLES[name]]
        for member, entry in zip(members, SAMPLES[name], strict=True):
            assert (member.mode, member.uid, member.gid, member.mtime) == (entry.mode, entry.uid, entry.gid, MTIME)
            assert (member.uname, member.gname) == ("", "")
            assert member.isfile() == (entry.type == "file")
            assert member.isdir() == (entry.type == "directory")
            assert member.issym() == (entry.type == "symlink")
            if entry.type == "symlink":
                assert member.linkname == entry.target
            if entry.type == "file":
                stream = tar.extractfile(member)
                assert stream is not None
                expected = entry.data if entry.data is not None else CONTENTS[entry.content.id if entry.content else ""]
                assert stream.read() == expected


def gnu_list(path: Path, *options: str) -> list[str]:
    command = ["tar", *options, "--utc", "--numeric-owner", "--full-time", "--quoting-style=literal", "-f", str(path)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    )
    assert result.stderr == ""
    return result.stdout.splitlines()


@pytest.mark.parametrize("name", list(SAMPLES))
def test_gnu_tar_lists_what_was_meant(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of(SAMPLES[name]))
    lines = gnu_list(path, "-tv")
    assert len(lines) == len(SAMPLES[name])
    for line, entry in zip(lines, SAMPLES[name], strict=True):
        ending = {"file": entry.path, "directory": f"{entry.path}/", "symlink": f"{entry.path} -> {entry.target}"}
        assert line.endswith(f" 1980-01-02 00:00:00 {ending[entry.type]}")
        assert line[0] == {"file": "-", "directory": "d", "symlink": "l"}[entry.type]
        assert line.split()[1] == f"{entry.uid}/{entry.gid}"


def test_ustar_where_it_fits_and_pax_where_it_does_not() -> None:
    plain = headers(Entry(path=P255, type="file", mode=0o644), 1)
    assert len(plain) == BLOCK
    assert plain[257:265] == b"ustar\x0000"
    assert plain[345:500].rstrip(b"\0") == P255[:155].encode()
    extended = headers(Entry(path=P300, type="file", mode=0o644), 1)
    assert extended[156:157] == b"x"
    assert extended[BLOCK : BLOCK + 9] == b"309 path="
    # The length counts its own digits, also where they become one more.
    for length in range(80, 120):
        record = headers(Entry(path="ü" + "x" * length, type="file", mode=0o644), 1)[BLOCK:]
        stated = int(record.split(b" ", 1)[0])
        assert record[stated - 1 : stated] == b"\n"
        assert not record[stated : -(-stated // BLOCK) * BLOCK].strip(b"\0")


@pytest.mark.parametrize("size", [BIG - 1, BIG, BIG + 1, 52_000 * 1024**2, 2**53])
@pytest.mark.parametrize("path", ["opt/weights/x", P255])
def test_sizes_around_8_gib(size: int, path: str) -> None:
    block = headers(Entry(path=path, type="file", mode=0o644), size)
    info = tarfile.TarInfo.frombuf(block[-BLOCK:], "utf-8", "strict")
    assert info.size == size
    if size < BIG:
        assert block[-BLOCK:][124:136] == b"77777777777\0"
        assert len(block) == BLOCK
    else:
        assert block[-BLOCK:][257:265] == b"ustar  \0"
        assert block[-BLOCK:][124:136] == b"\x80" + size.to_bytes(11, "big")
        # GNU magic and ustar's prefix exclude each other.
        assert block[-BLOCK:][345:500] == bytes(155)
        assert len(block) == (BLOCK if len(path) <= 100 else 3 * BLOCK)


@pytest.mark.parametrize("path", ["opt/weights/x", P255])
def test_gnu_tar_and_python_seek_over_a_huge_file(path: str, tmp_path: Path) -> None:
    """Behind 8 GiB and one byte comes another entry: a sparse file stands for the tar."""
    big = Content(size=BIG + 1, sha256=SHA["e"])
    after = Entry(path="z", type="file", mode=0o644, data=b"after")
    stream = TarStream([Entry(path=path, type="file", mode=0o644, content=big), after])
    file = tmp_path / "big.tar"
    with file.open("wb") as out:
        for segment in stream.segments:
            if segment.data is not None:
                out.seek(segment.start)
                out.write(segment.data)
    assert file.stat().st_size == stream.size
    listing = [line.split() for line in gnu_list(file, "-tv")]
    assert [(line[2], line[5]) for line in listing] == [(str(BIG + 1), path), ("5", "z")]
    with tarfile.open(file) as tar:
        assert [(m.name, m.size) for m in tar.getmembers()] == [(path, BIG + 1), ("z", 5)]
        last = tar.extractfile("z")
        assert last is not None
        assert last.read() == b"after"


def test_offsets_beyond_8_gib_are_asked_of_the_content() -> None:
    big = Content(size=BIG + 1, sha256=SHA["e"])
    stream = TarStream([Entry(path="a", type="file", mode=0o644, content=big)])
    asked: list[int] = []

    def open_content(content: Content, offset: int):  # type: ignore[no-untyped-def]
        asked.append(offset)
        yield b"x" * min(10, content.size - offset)  # type: ignore[operator]

    assert b"".join(stream.read(open_content, BLOCK + BIG)) == b"x" + bytes(511) + bytes(1024)
    assert asked == [BIG]
    assert b"".join(stream.read(open_content, BLOCK + BIG + 1)) == bytes(511) + bytes(1024)
    assert asked == [BIG]


ALL = [
    Entry(
        path=f"{i}{entry.path}",
        type=entry.type,
        mode=entry.mode,
        content=entry.content,
        data=entry.data,
        target=entry.target,
    )
    for i, entry in enumerate(e for sample in SAMPLES.values() for e in sample)
]
STREAM = TarStream(ALL)
WHOLE = tar_of(ALL)
EDGES = sorted({s.start + d for s in STREAM.segments for d in (-1, 0, 1, s.size - 1)} | {STREAM.size - 1, STREAM.size})


@settings(max_examples=300)
@given(st.sampled_from([e for e in EDGES if e >= 0]) | st.integers(0, len(WHOLE)))
def test_reading_from_an_offset_is_reading_the_rest(offset: int) -> None:
    chunks = list(STREAM.read(reader(CONTENTS), offset))
    assert b"".join(chunks) == WHOLE[offset:]
    assert all(chunks)


def test_contents_are_listed_in_reading_order_without_empty_ones() -> None:
    entries = [*SAMPLES["empty"], *SAMPLES["tree"]]
    assert TarStream(entries).contents == [A, C]


@pytest.mark.parametrize(
    "entry",
    [
        Entry(path="a", type="file", mode=0o644, data=b"", uid=2097152),
        Entry(path="a", type="directory", mode=0o755, gid=2**31 - 1),
    ],
)
def test_an_owner_that_does_not_fit(entry: Entry) -> None:
    with pytest.raises(LayerbuildError) as caught:
        TarStream([entry])
    assert "2097151" in str(caught.value.hint)


@pytest.mark.parametrize("content", [None, Content(size=None, sha256=SHA["a"])])
def test_a_size_that_nobody_knows(content: Content | None) -> None:
    with pytest.raises(LayerbuildError, match="the size of a/b is not known"):
        TarStream([Entry(path="a/b", type="file", mode=0o644, content=content)])

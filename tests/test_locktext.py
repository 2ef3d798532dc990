"""The lock's text: what is written is read back, and what nobody wrote is refused."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import SHA, sha256
from layerbuild import locktext
from layerbuild.errors import LockError
from layerbuild.lockmodel import Lock, LockedBase, LockedImage, LockedIndex, LockedLayer
from layerbuild.lockparse import parse
from layerbuild.model import Blob, Content, Directory, Facts, Pin, PinnedFile, Receipt
from layerbuild.paths import unsafe_reason

TREE = "1234567890" * 4

LOCK = Lock(
    layers={
        "sd15[checkpoint=sd15]": LockedLayer(
            declaration=SHA["a"],
            pins={
                "model": Pin(
                    source="hf://acme/sd15@" + "b" * 40,
                    files=(PinnedFile(path="sub/ü ✓.safetensors", content=Content(size=0, sha256=SHA["c"])),),
                    revision="b" * 40,
                    ref="main",
                    absent=("added_tokens.json", "x: y"),
                ),
                "/a: #b": Pin(
                    source="https://example.org/x",
                    files=(PinnedFile(path="x", content=Content(size=None, git_blob="1" * 40)),),
                    mirrors=("https://example.com/x", "https://example.net/y"),
                ),
                "/b": Pin(
                    source="oci://example.org/x@sha256:" + SHA["a"] + "/x",
                    files=(PinnedFile(path="x", content=Content(size=3, sha256=SHA["b"])),),
                    blob="sha256:" + SHA["c"],
                    offset=512,
                ),
            },
        ),
        "webui": LockedLayer(
            declaration="0" * 64,
            pins={
                "webui": Pin(
                    source="git+https://h/r@" + TREE,
                    revision=TREE,
                    tree=TREE,
                    listing="0" * 64,
                    date=1700000000,
                    version="1.10",
                )
            },
        ),
    },
    files={
        SHA["c"]: Facts(
            size=10,
            safetensors=True,
            header_size=2,
            header_sha256=SHA["d"],
            metadata='{"a":"b"}',
            addnet=SHA["e"],
            architecture="sdxl",
        ),
        SHA["d"]: Facts(size=0),
        "1" * 64: Facts(size=5, safetensors=False, git_blob="1" * 40),
    },
    receipts={
        SHA["e"]: Receipt(
            key=SHA["e"],
            diff_id=f"sha256:{SHA['f']}",
            size=10240,
            blobs=(Blob(encoding="zstd:3:1.5.7", digest=f"sha256:{SHA['a']}", size=99),),
        ),
    },
    images={
        "acme/a1111": LockedImage(
            platform="linux/amd64",
            settings=SHA["a"][:16],
            base=LockedBase(
                reference="docker.io/acme/base:1",
                digest=f"sha256:{SHA['a']}",
                directories={"root": Directory(path="root", mode=0o1700, uid=4294967294, gid=0), "root/x": None},
            ),
            layers=("weights/sd15@" + "a" * 16, "links/a1111@pending"),
            manifest=f"sha256:{SHA['b']}",
        ),
        "bare": LockedImage(platform="linux/arm64/v8", settings=SHA["b"][:16], base=None, layers=()),
    },
    indexes={
        "acme/a1111": LockedIndex(platforms=("linux/arm64", "linux/amd64"), digest=f"sha256:{SHA['d']}"),
        "other": LockedIndex(platforms=("linux/amd64", "linux/arm/v7")),
    },
    unlocked={"base:docker.io/x:1": "no answer\nfrom it: =======\n======= twice"},
)
TEXT = locktext.dump(LOCK)


def fault(text: str) -> LockError:
    with pytest.raises(LockError) as caught:
        parse(text)
    assert caught.value.hint
    return caught.value


def test_round_trip_of_everything() -> None:
    assert parse(TEXT) == LOCK
    assert locktext.dump(parse(TEXT)) == TEXT


def test_a_long_section_is_written_in_pieces_that_do_not_show() -> None:
    keys = [sha256(b"%d" % number) for number in range(450)]
    lock = Lock(receipts={key: Receipt(key=key, diff_id=f"sha256:{SHA['a']}", size=1) for key in keys})
    text = locktext.dump(lock)
    assert text.count("receipts:") == 1
    assert list(parse(text).receipts) == sorted(keys) and parse(text) == lock


def test_an_empty_lock() -> None:
    assert parse(locktext.dump(Lock())) == Lock()


def test_a_lock_without_indexes_is_as_it_was_before_there_were_any() -> None:
    text = locktext.dump(replace(LOCK, indexes={}))
    assert "indexes" not in text and text == TEXT[: TEXT.index("indexes:")] + TEXT[TEXT.index("unlocked:") :]
    assert parse(text) == replace(LOCK, indexes={})


def test_the_text_is_meant_to_be_reviewed() -> None:
    assert TEXT.startswith("# ")
    assert TEXT.endswith("\n")
    assert "\r" not in TEXT
    assert "&id" not in TEXT
    assert "!!" not in TEXT
    # One line for each file of a pin, one for each layer of an image.
    assert "      - {path: sub/ü ✓.safetensors, size: 0, sha256: " in TEXT
    assert "  - links/a1111@pending\n" in TEXT
    assert [line for line in TEXT.splitlines() if re.match(r"\w", line)] == [
        "version: 1",
        "layers:",
        "files:",
        "receipts:",
        "images:",
        "indexes:",
        "unlocked:",
    ]


def test_the_order_is_that_of_the_names() -> None:
    def turned(section: dict[str, object]) -> dict[str, object]:
        return dict(reversed(list(section.items())))

    layers = {name: replace(layer, pins=turned(dict(layer.pins))) for name, layer in LOCK.layers.items()}
    other = Lock(
        layers=turned(layers),  # type: ignore[arg-type]
        files=turned(dict(LOCK.files)),  # type: ignore[arg-type]
        receipts=turned(dict(LOCK.receipts)),  # type: ignore[arg-type]
        images=turned(dict(LOCK.images)),  # type: ignore[arg-type]
        indexes=turned(dict(LOCK.indexes)),  # type: ignore[arg-type]
        unlocked=LOCK.unlocked,
    )
    assert locktext.dump(other) == TEXT


DAMAGES = [
    ("version: 1", "version: true", "version"),
    ("version: 1", "version: '1'", "version"),
    ("version: 1", "version: 0", "version"),
    ("version: 1\n", "", None),
    ("unlocked:", "unlokced:", "unlokced"),
    (f"declaration: {SHA['a']}", "declaration: abc", "layers.sd15[checkpoint=sd15].declaration"),
    (f"declaration: {SHA['a']}", f"declaration: {SHA['a'].upper()}", "layers.sd15[checkpoint=sd15].declaration"),
    (f"    declaration: {SHA['a']}\n", "", "layers.sd15[checkpoint=sd15].declaration"),
    ("revision: " + "b" * 40, "revision: main", "layers.sd15[checkpoint=sd15].pins.model.revision"),
    ("ref: main", "ref: ../main", "layers.sd15[checkpoint=sd15].pins.model.ref"),
    ("ref: main", "reff: main", "layers.sd15[checkpoint=sd15].pins.model.reff"),
    ("source: https://example.org/x", "source: 3", "layers.sd15[checkpoint=sd15].pins./a: #b.source"),
    ("path: x,", "path: ../x,", "layers.sd15[checkpoint=sd15].pins./a: #b.files.0.path"),
    ("path: x,", "path: /x,", "layers.sd15[checkpoint=sd15].pins./a: #b.files.0.path"),
    ("path: x,", "", "layers.sd15[checkpoint=sd15].pins./a: #b.files.0.path"),
    ("size: 0, sha256", "size: -1, sha256", "layers.sd15[checkpoint=sd15].pins.model.files.0.size"),
    ("size: 0, sha256", "size: true, sha256", "layers.sd15[checkpoint=sd15].pins.model.files.0.size"),
    ("size: 0, sha256", "size: 9223372036854775808, sha256", "layers.sd15[checkpoint=sd15].pins.model.files.0.size"),
    (f"git_blob: '{'1' * 40}'}}", "git_blob: null}", "layers.sd15[checkpoint=sd15].pins./a: #b.files.0"),
    ("absent: [added", "absent: [../added", "layers.sd15[checkpoint=sd15].pins.model.absent.0"),
    ("absent: [added_tokens.json, 'x: y']", "absent: x", "layers.sd15[checkpoint=sd15].pins.model.absent"),
    (f"tree: '{TREE}'", f"tree: {TREE}", "layers.webui.pins.webui.tree"),
    (f"listing: '{'0' * 64}'", "listing: x", "layers.webui.pins.webui.listing"),
    ("date: 1700000000", "date: -1", "layers.webui.pins.webui.date"),
    ("date: 1700000000", "date: '1700000000'", "layers.webui.pins.webui.date"),
    ("version: '1.10'", "version: 1.10", "layers.webui.pins.webui.version"),
    ("architecture: sdxl", "architecture: [sdxl]", f"files.{SHA['c']}.architecture"),
    (f"  {SHA['d']}: {{size: 0}}", "  short: {size: 0}", "files.short"),
    ("    size: 10\n", "", f"files.{SHA['c']}.size"),
    ("header_size: 2", "header_size: 2.5", f"files.{SHA['c']}.header_size"),
    ("safetensors: true", "safetensors: 1", f"files.{SHA['c']}.safetensors"),
    ("safetensors: true", "safetensors: [x]", f"files.{SHA['c']}.safetensors"),
    ("addnet: e", "addnet: x", f"files.{SHA['c']}.addnet"),
    ("""metadata: '{"a":"b"}'""", "metadata: {a: b}", f"files.{SHA['c']}.metadata"),
    (f"  {SHA['e']}:\n    diff_id", "  eeee:\n    diff_id", "receipts.eeee"),
    ("diff_id: sha256:", "diff_id: sha512:", f"receipts.{SHA['e']}.diff_id"),
    ("digest: 'sha256:" + "a" * 64, "digest: 'x", f"receipts.{SHA['e']}.blobs.0.digest"),
    ("encoding: 'zstd:3:1.5.7'", "encoding: [zstd]", f"receipts.{SHA['e']}.blobs.0.encoding"),
    ("platform: linux/amd64", "platform: 3", "images.acme/a1111.platform"),
    ("settings: aaaa", "settings: zzzz", "images.acme/a1111.settings"),
    ("reference: docker.io/acme/base:1", "reference: {}", "images.acme/a1111.base.reference"),
    ("root: 1700 4294967294:0", "root: rwx 0:0", "images.acme/a1111.base.directories.root"),
    ("root: 1700 4294967294:0", "root: 9700 0:0", "images.acme/a1111.base.directories.root"),
    ("root: 1700", "../root: 1700", "images.acme/a1111.base.directories.../root"),
    ("  - links/a1111@pending", "  - 3", "images.acme/a1111.layers.1"),
    ("    manifest: sha256:", "    manifest: ", "images.acme/a1111.manifest"),
    ("    layers: []", "    layers: {}", "images.bare.layers"),
    ("platforms: [linux/arm64, linux/amd64]", "platforms: linux/arm64", "indexes.acme/a1111.platforms"),
    ("platforms: [linux/arm64, linux/amd64]", "platforms: [linux/arm64, 3]", "indexes.acme/a1111.platforms.1"),
    ("platforms: [linux/arm64, linux/amd64]", "platforms: [linux/arm64]", "indexes.acme/a1111.platforms"),
    ("platforms: [linux/arm64, linux/amd64]", "platforms: [linux/a, linux/a]", "indexes.acme/a1111.platforms"),
    ("    digest: sha256:dd", "    digest: dd", "indexes.acme/a1111.digest"),
    ("  other:\n", "  other:\n    manifest: x\n", "indexes.other.manifest"),
    ("unlocked:\n", "unlocked:\n  a: 3\n", "unlocked.a"),
    ("receipts:\n", "receipts: 3\nunlocked: {}\nimages:\n", "receipts"),
]


@pytest.mark.parametrize(("before", "after", "key"), DAMAGES)
def test_a_damaged_field_is_named_with_its_line(before: str, after: str, key: str | None) -> None:
    assert before in TEXT
    damaged = TEXT.replace(before, after, 1)
    if after.startswith("receipts: 3"):
        damaged = damaged[: damaged.index("receipts: 3") + len("receipts: 3")] + "\n"
    error = fault(damaged)
    where = re.search(r"lockfile\.yaml:(\d+): (.*)", error.message)
    assert where is not None, error.message
    assert key is None or where[2].startswith(f"{key}: "), error.message
    line = damaged.splitlines()[int(where[1]) - 1]
    assert not after or any(part in line for part in after.split()), line


@pytest.mark.parametrize("text", ["", "[]", "text", "a: b", "version: 1\nversion: 1", "version: 1\nlayers: [\n", "3"])
def test_what_is_no_lock_at_all(text: str) -> None:
    assert "lockfile.yaml" in fault(text).message


def test_a_key_given_twice_is_damage() -> None:
    assert "already stands in line" in str(fault(TEXT.replace("images:\n", "images:\n  bare: {}\n", 1)))


def test_a_newer_version_asks_for_an_update() -> None:
    error = fault(TEXT.replace("version: 1", "version: 2"))
    assert error.message == "lockfile.yaml has version 2, this layerbuild knows 1"
    assert error.hint == "update layerbuild"


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> branch"])
def test_conflict_markers_are_named(marker: str) -> None:
    assert "conflict markers" in fault(TEXT.replace("images:\n", f"{marker}\nimages:\n")).message


def test_two_files_of_one_path_are_damage() -> None:
    line = re.search(r"\n *- \{path: x.*", TEXT)
    assert line is not None
    assert "twice" in fault(TEXT.replace(line[0], line[0] * 2)).message


# --- every lock ---------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = WORDS.filter(lambda text: unsafe_reason(text) is None)
HEX64 = st.text("0123456789abcdef", min_size=64, max_size=64) | st.sampled_from(["1" * 64, "0" * 64, "1e" + "0" * 62])
HEX40 = HEX64.map(lambda text: text[:40])
DIGESTS = HEX64.map("sha256:{}".format)
SIZES = st.integers(0, 2**63 - 1)


def maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


CONTENTS = st.builds(Content, size=maybe(SIZES), sha256=HEX64, git_blob=maybe(HEX40)) | st.builds(
    Content, size=maybe(SIZES), git_blob=HEX40
)
FILES = st.lists(st.builds(PinnedFile, path=NAMES, content=CONTENTS), max_size=3, unique_by=lambda file: file.path)
PINS = st.builds(
    Pin,
    source=WORDS,
    files=FILES.map(tuple),
    revision=maybe(HEX40),
    ref=maybe(NAMES),
    tree=maybe(HEX40),
    listing=maybe(HEX64),
    absent=st.lists(NAMES, max_size=3, unique=True).map(sorted).map(tuple),
    date=maybe(SIZES),
    version=maybe(WORDS),
)
FACTS = st.builds(
    Facts,
    size=SIZES,
    git_blob=maybe(HEX40),
    safetensors=maybe(st.booleans()),
    header_size=maybe(SIZES),
    header_sha256=maybe(HEX64),
    metadata=maybe(WORDS),
    addnet=maybe(HEX64),
    architecture=maybe(WORDS),
)
BLOBS = st.builds(Blob, encoding=WORDS, digest=DIGESTS, size=SIZES)
OWNERS = st.integers(0, 2**32 - 1)


@st.composite
def directories(draw: st.DrawFn) -> dict[str, Directory | None]:
    found: dict[str, Directory | None] = {}
    for path in draw(st.lists(NAMES, max_size=2)):
        mode = draw(st.integers(0, 0o7777))
        made = Directory(path=path, mode=mode, uid=draw(OWNERS), gid=draw(OWNERS))
        found[path] = made if draw(st.booleans()) else None
    return found


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    bases = st.builds(LockedBase, reference=WORDS, digest=DIGESTS, directories=directories())
    images = st.builds(
        LockedImage,
        platform=WORDS,
        settings=HEX64.map(lambda value: value[:16]),
        base=maybe(bases),
        layers=st.lists(WORDS, max_size=3).map(tuple),
        manifest=maybe(DIGESTS),
    )
    several = st.lists(WORDS, min_size=2, max_size=3, unique=True).map(tuple)
    indexes = st.builds(LockedIndex, platforms=several, digest=maybe(DIGESTS))
    receipts = {
        key: Receipt(key=key, diff_id=draw(DIGESTS), size=draw(SIZES), blobs=tuple(draw(st.lists(BLOBS, max_size=2))))
        for key in draw(st.lists(HEX64, max_size=2))
    }
    layers = st.builds(LockedLayer, declaration=HEX64, pins=st.dictionaries(WORDS, PINS, max_size=2))
    return Lock(
        layers=draw(st.dictionaries(WORDS | st.text("x=", min_size=120, max_size=300), layers, max_size=2)),
        files=draw(st.dictionaries(HEX64, FACTS, max_size=2)),
        receipts=receipts,
        images=draw(st.dictionaries(WORDS, images, max_size=2)),
        indexes=draw(st.dictionaries(WORDS, indexes, max_size=2)),
        unlocked=draw(st.dictionaries(WORDS, WORDS, max_size=2)),
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(locks())
def test_every_lock_round_trips(lock: Lock) -> None:
    text = locktext.dump(lock)
    assert parse(text) == lock
    assert locktext.dump(parse(text)) == text
    assert yaml.safe_load(text)["version"] == 1


# --- files ---------------------------------------------------------------------------------------


def test_reading_and_writing(tmp_path: Path) -> None:
    path = tmp_path / "lockfile.yaml"
    assert locktext.read(path) is None
    assert locktext.write(path, LOCK)
    assert path.read_bytes() == TEXT.encode()
    assert locktext.read(path) == LOCK
    assert [p.name for p in tmp_path.iterdir()] == ["lockfile.yaml"]


def test_a_lock_is_readable_for_all_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "lockfile.yaml"
    before = os.umask(0o077)
    try:
        locktext.write(path, Lock())
        assert path.stat().st_mode & 0o777 == 0o644
        path.chmod(0o664)
        locktext.write(path, LOCK)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o664


def test_an_unchanged_lock_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "lockfile.yaml"
    locktext.write(path, LOCK)
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    assert not locktext.write(path, LOCK)
    assert (path.stat().st_mtime, path.stat().st_ino) == (1, inode)


def test_crlf_is_tolerated_and_not_written_back(tmp_path: Path) -> None:
    path = tmp_path / "lockfile.yaml"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert locktext.read(path) == LOCK
    assert locktext.write(path, LOCK)
    assert path.read_bytes() == TEXT.encode()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"version: 1\n\x00"])
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lockfile.yaml"
    path.write_bytes(content)
    with pytest.raises(LockError, match=r"lockfile\.yaml cannot be read"):
        locktext.read(path)


def test_a_directory_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="cannot be read"):
        locktext.read(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(LockError) as caught:
        locktext.write(tmp_path / "gone" / "lockfile.yaml", LOCK)
    assert caught.value.cause == os.strerror(errno.ENOENT)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from layerbuild import locktext
from layerbuild.lockparse import parse
from layerbuild.errors import LockError
lock = parse(Path(sys.argv[1]).read_text())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    locktext.write(Path(sys.argv[2]), lock)
except LockError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_lock(tmp_path: Path) -> None:
    source, directory = tmp_path / "source.yaml", tmp_path / "project"
    directory.mkdir()
    source.write_text(TEXT, encoding="utf-8")
    path = directory / "lockfile.yaml"
    locktext.write(path, Lock())
    before = path.read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(source), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert "lockfile.yaml cannot be written" in result.stdout
    assert os.strerror(errno.EFBIG) in result.stdout
    assert path.read_bytes() == before
    assert [p.name for p in directory.iterdir()] == ["lockfile.yaml"]

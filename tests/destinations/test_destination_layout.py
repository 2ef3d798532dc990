from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fixtures.registry import Image, MemoryBlob, digest_of, make_image
from layerbuild.destinations import Destination
from layerbuild.destinations.layout import LayoutDestination
from layerbuild.destinations.layoutdir import REF_NAME
from layerbuild.errors import ContentMismatch, DestinationError, SourceError, UsageError

TAR = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_TAR = bytes(10240)


def ignore(amount: int) -> None:
    pass


def layout(path: Path) -> Destination:
    return LayoutDestination(f"oci:{path}", path)


def push(destination: Destination, name: str, tag: str | None, image: Image) -> None:
    for blob in image.blobs:
        destination.put(name, blob, advance=ignore)
    destination.put_manifest(name, tag, image.media_type, image.manifest)


def index(path: Path) -> dict[str, Any]:
    value = json.loads((path / "index.json").read_bytes())
    assert isinstance(value, dict)
    return value


def names(path: Path) -> dict[str, str]:
    return {e["annotations"][REF_NAME]: e["digest"] for e in index(path)["manifests"]}


def files(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def test_skopeo_reads_what_was_put(tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = make_image([(TAR, EMPTY_TAR)], created="1980-01-02T00:00:00Z")
    push(layout(out), "acme/a1111-sd15", "1.0", image)
    push(layout(out), "other", "latest", make_image([(TAR, EMPTY_TAR)], author="x"))
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{out}:acme/a1111-sd15:1.0"], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert found["Digest"] == image.digest
    assert found["Layers"] == [digest_of(EMPTY_TAR)]
    copy = tmp_path / "copy"
    subprocess.run(
        ["skopeo", "copy", "--preserve-digests", f"oci:{out}:acme/a1111-sd15:1.0", f"oci:{copy}:x"],
        check=True,
        capture_output=True,
    )
    assert index(copy)["manifests"][0]["digest"] == image.digest


def test_what_is_on_disk(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    destination = layout(out)
    assert not out.exists(), "nothing is made before something is put"
    assert not destination.has("a", digest_of(b"x"))
    image = make_image([(TAR, EMPTY_TAR)])
    old = os.umask(0o077)
    try:
        push(destination, "a", "1", image)
    finally:
        os.umask(old)
    digests = [image.digest, *(blob.digest for blob in image.blobs)]
    assert files(out) == sorted(
        ["index.json", "oci-layout", *(f"blobs/sha256/{d.removeprefix('sha256:')}" for d in digests)]
    )
    assert json.loads((out / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert all((out / name).stat().st_mode & 0o777 == 0o644 for name in files(out))
    assert all(destination.has("another", d) and destination.mount("another", d, []) for d in digests)
    assert index(out)["manifests"] == [
        {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": len(image.manifest),
            "annotations": {"org.opencontainers.image.ref.name": "a:1"},
        }
    ]


def test_a_tag_that_moves_and_one_that_stays(tmp_path: Path) -> None:
    one, two = make_image(author="one"), make_image(author="two")
    destination = layout(tmp_path / "out")
    for name, tag, image in (("b", "1", one), ("a", "2", one), ("a", "1", one), ("a", "1", two)):
        push(destination, name, tag, image)
    assert names(tmp_path / "out") == {"a:1": two.digest, "a:2": one.digest, "b:1": one.digest}
    assert list(names(tmp_path / "out")) == ["a:1", "a:2", "b:1"], "sorted"


def test_without_a_tag_the_index_is_left_alone(tmp_path: Path) -> None:
    destination = layout(tmp_path / "out")
    push(destination, "a", "1", make_image(author="one"))
    before = (tmp_path / "out" / "index.json").read_bytes()
    image = make_image(author="two")
    push(destination, "a", None, image)
    assert destination.has("a", image.digest)
    assert (tmp_path / "out" / "index.json").read_bytes() == before


def test_the_same_images_give_the_same_files_in_any_order(tmp_path: Path) -> None:
    images = {tag: make_image(author=tag) for tag in "123"}
    for name, order in (("x", "123"), ("y", "321")):
        for tag in order:
            push(layout(tmp_path / name), "a", tag, images[tag])
    assert files(tmp_path / "x") == files(tmp_path / "y")
    assert (tmp_path / "x" / "index.json").read_bytes() == (tmp_path / "y" / "index.json").read_bytes()


def test_what_other_tools_wrote_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    push(layout(out), "a", "1", make_image())
    foreign = index(out)
    foreign["annotations"] = {"by": "someone"}
    entry = {"mediaType": "x/y", "digest": digest_of(b"?"), "size": 1, "platform": {"os": "plan9"}}
    foreign["manifests"].append(entry)
    (out / "index.json").write_text(json.dumps(foreign))
    (out / "README").write_text("mine")
    push(layout(out), "a", "2", make_image())
    assert index(out)["annotations"] == {"by": "someone"}
    assert entry in index(out)["manifests"]
    assert (out / "README").read_text() == "mine"


def test_wrong_bytes_are_not_stored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told: list[int] = []
    data = b"x" * 3_000_000
    for blob in (MemoryBlob(data, digest=digest_of(b"y")), MemoryBlob(data, size=5), MemoryBlob(data, size=10**9)):
        with pytest.raises(ContentMismatch):
            layout(out).put("a", blob, advance=told.append)
    assert files(out) == ["index.json", "oci-layout"]
    assert sum(told) == 0


def test_a_source_that_fails_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    class Failing(MemoryBlob):
        def open(self, offset: int = 0) -> Iterator[bytes]:
            yield b"x"
            raise OSError(5, "Input/output error")

    with pytest.raises(SourceError, match="reading sha256:"):
        layout(tmp_path / "out").put("a", Failing(b"xy"), advance=ignore)
    assert files(tmp_path / "out") == ["index.json", "oci-layout"]


# --- blobs whose digest is known only when they have gone ------------------------------------------

DATA = bytes(range(251)) * 25_000
"""Long enough to be hashed in a thread of its own."""


def opened(data: bytes, error: Exception | None = None) -> Iterator[bytes]:
    for start in range(0, len(data), 700_001):
        yield data[start : start + 700_001]
    if error:
        raise error


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=len)
def test_a_blob_gets_its_name_when_it_is_whole(tmp_path: Path, data: bytes) -> None:
    out = tmp_path / "out"
    told: list[int] = []

    def looking() -> Iterator[bytes]:
        for piece in opened(data):
            assert not [name for name in files(out) if name.startswith("blobs/") and ".layerbuild-" not in name]
            yield piece

    digest = layout(out).put_unnamed("a", len(data), looking, title="layer x", advance=told.append)
    assert digest == digest_of(data)
    path = out / "blobs" / "sha256" / digest.removeprefix("sha256:")
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o644
    assert files(out) == sorted([f"blobs/sha256/{path.name}", "index.json", "oci-layout"])
    assert sum(told) == len(data)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SourceError("the disk is on fire"), SourceError),
        (OSError(5, "Input/output error"), SourceError),
        (ArithmeticError("a mistake in the reader"), ArithmeticError),
    ],
)
@pytest.mark.parametrize("good", [0, 2_000_000, len(DATA)])
def test_a_reader_that_fails_leaves_nothing(
    tmp_path: Path, good: int, error: Exception, expected: type[Exception]
) -> None:
    told: list[int] = []
    with pytest.raises(expected) as caught:
        layout(tmp_path).put_unnamed(
            "a", len(DATA), lambda: opened(DATA[:good], error), title="layer x", advance=told.append
        )
    assert caught.value is error or "reading layer x failed" in str(caught.value)
    assert files(tmp_path) == ["index.json", "oci-layout"]
    assert sum(told) == 0


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1])
def test_more_or_fewer_bytes_than_were_promised(tmp_path: Path, size: int) -> None:
    with pytest.raises(ContentMismatch, match="the bytes of layer x are not what they should be"):
        layout(tmp_path).put_unnamed("a", size, lambda: opened(DATA), title="layer x", advance=ignore)
    assert files(tmp_path) == ["index.json", "oci-layout"]


def test_a_blob_that_is_there_already_stays_and_a_short_one_is_replaced(tmp_path: Path) -> None:
    digest = layout(tmp_path).put_unnamed("a", len(DATA), lambda: opened(DATA), title="x", advance=ignore)
    path = tmp_path / "blobs" / "sha256" / digest.removeprefix("sha256:")
    before = path.stat().st_ino
    assert layout(tmp_path).put_unnamed("b", len(DATA), lambda: opened(DATA), title="x", advance=ignore) == digest
    assert path.stat().st_ino == before
    path.write_bytes(b"half")
    assert layout(tmp_path).put_unnamed("b", len(DATA), lambda: opened(DATA), title="x", advance=ignore) == digest
    assert path.read_bytes() == DATA
    assert len(files(tmp_path)) == 3


def test_a_disk_that_is_full_while_a_blob_without_a_name_comes(tmp_path: Path) -> None:
    told: list[int] = []
    destination = layout(tmp_path)
    destination.put("a", MemoryBlob(b"x"), advance=ignore)
    before = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
    try:
        with pytest.raises(DestinationError, match="cannot be written"):
            destination.put_unnamed("a", len(DATA), lambda: opened(DATA), title="x", advance=told.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files(tmp_path) == before
    assert sum(told) == 0


# --- manifests of tags ---------------------------------------------------------------------------


def test_the_manifest_of_a_tag(tmp_path: Path) -> None:
    destination = layout(tmp_path / "out")
    assert destination.manifest("a", "1") is None
    assert not (tmp_path / "out").exists()
    image, other = make_image([(TAR, EMPTY_TAR)]), make_image(author="x")
    push(destination, "a", "1", image)
    push(destination, "a", "2", other)
    assert destination.manifest("a", "1") == image.manifest
    assert destination.manifest("a", "2") == other.manifest
    assert destination.manifest("a", "3") is None
    assert destination.manifest("b", "1") is None
    push(destination, "a", "1", other)
    assert destination.manifest("a", "1") == other.manifest
    with pytest.raises(UsageError):
        destination.manifest("a", "not a tag")


def test_the_index_of_several_images_has_a_tag(tmp_path: Path) -> None:
    images = [make_image(architecture=name) for name in ("amd64", "arm64")]
    destination = layout(tmp_path)
    for image in images:
        push(destination, "a", None, image)
    entries = [{"mediaType": i.media_type, "digest": i.digest, "size": len(i.manifest)} for i in images]
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    destination.put_manifest("a", "1", INDEX, data)
    assert destination.manifest("a", "1") == data
    assert [destination.manifest("a", image.digest) for image in images] == [image.manifest for image in images]
    assert destination.manifest("a", digest_of(b"nothing")) is None
    (entry,) = index(tmp_path)["manifests"]
    assert (entry["mediaType"], entry["digest"]) == (INDEX, digest_of(data))


@pytest.mark.parametrize(
    "edit",
    [
        {"mediaType": "application/vnd.oci.artifact.manifest.v1+json"},
        {"mediaType": 7},
        {"digest": "sha256:../../../etc/passwd"},
        {"digest": digest_of(b"nothing")},
        {"size": 1 << 40},
        {"size": -1},
        {"size": 3},
    ],
    ids=str,
)
def test_a_tag_of_something_else_has_no_manifest(tmp_path: Path, edit: dict[str, Any]) -> None:
    push(layout(tmp_path), "a", "1", make_image())
    value = index(tmp_path)
    value["manifests"][0].update(edit)
    (tmp_path / "index.json").write_text(json.dumps(value))
    assert layout(tmp_path).manifest("a", "1") is None


def test_a_damaged_manifest_counts_as_absent(tmp_path: Path) -> None:
    image = make_image()
    push(layout(tmp_path), "a", "1", image)
    path = tmp_path / "blobs" / "sha256" / image.digest.removeprefix("sha256:")
    path.write_bytes(bytes(len(image.manifest)))
    assert layout(tmp_path).manifest("a", "1") is None


@pytest.mark.parametrize("name", ["notes.txt", "oci-layout.old", "index.json"])
def test_a_directory_with_other_things_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"my": "own"}')
    with pytest.raises(DestinationError, match="is not an OCI image layout") as caught:
        layout(tmp_path)
    assert caught.value.hint
    assert files(tmp_path) == [name]


def test_a_directory_that_was_filled_meanwhile_is_left_alone(tmp_path: Path) -> None:
    destination = layout(tmp_path)
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(DestinationError, match="is not an OCI image layout"):
        destination.put("a", MemoryBlob(b"x"), advance=ignore)
    assert files(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationError, match="is not a directory"):
        layout(tmp_path / "file")
    with pytest.raises(DestinationError):
        layout(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}', "another version"),
        ("oci-layout", "{}", "another version"),
        ("oci-layout", "[1", "is damaged"),
        ("index.json", '{"schemaVersion": 3, "manifests": []}', "not an index that is known"),
        ("index.json", '{"schemaVersion": 2, "manifests": {}}', "not an index that is known"),
        ("index.json", '{"schemaVersion": 2, "manifests": [7]}', "not an index that is known"),
        ("index.json", "[" * 100_000, "is damaged"),
    ],
)
def test_newer_and_damaged_layouts_are_refused(tmp_path: Path, name: str, content: str, expected: str) -> None:
    push(layout(tmp_path), "a", "1", make_image())
    (tmp_path / name).write_text(content)
    with pytest.raises(DestinationError, match=expected):
        layout(tmp_path)
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_a_layout_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    push(layout(tmp_path), "a", "1", make_image())
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(DestinationError, match="cannot be read"):
        layout(tmp_path)
    (tmp_path / name).rmdir()
    with pytest.raises(DestinationError):
        layout(tmp_path)


def test_entries_of_no_shape_do_no_harm(tmp_path: Path) -> None:
    push(layout(tmp_path), "a", "1", make_image())
    value = index(tmp_path)
    value["manifests"] += [{"annotations": 3}, {"digest": 4}, {"annotations": {REF_NAME: ["a:2"]}}]
    (tmp_path / "index.json").write_text(json.dumps(value))
    push(layout(tmp_path), "a", "2", make_image())
    assert len(index(tmp_path)["manifests"]) == 5


@pytest.mark.parametrize(("name", "tag"), [("A", "1"), ("../a", "1"), ("a", "-"), ("a", "b/c"), ("", "1")])
def test_names_that_no_registry_would_take(tmp_path: Path, name: str, tag: str) -> None:
    with pytest.raises(UsageError):
        push(layout(tmp_path / "out"), name, tag, make_image())


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    destination = layout(tmp_path / "out")
    push(destination, "a", "1", make_image())
    before = files(tmp_path / "out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
    try:
        with pytest.raises(DestinationError, match="cannot be written") as caught:
            destination.put("a", MemoryBlob(b"x" * 5_000_000), advance=ignore)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.cause
    assert files(tmp_path / "out") == before


def test_what_killed_writers_left_is_swept_up_and_what_live_ones_write_is_not(tmp_path: Path) -> None:
    push(layout(tmp_path), "a", "1", make_image())
    blobs = tmp_path / "blobs" / "sha256"
    for name in ("dead", "live", "young"):
        (blobs / f".layerbuild-{name}").write_bytes(b"half")
    for name in ("dead", "live"):
        os.utime(blobs / f".layerbuild-{name}", (1, 1))
    with (blobs / ".layerbuild-live").open("rb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        push(layout(tmp_path), "a", "2", make_image())
    assert sorted(p.name for p in blobs.glob(".layerbuild-*")) == [".layerbuild-live", ".layerbuild-young"]


def test_threads_and_processes_write_one_layout(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fixtures.registry import make_image
from test_destination_layout import layout, push
def one(number):
    push(layout(Path({str(out)!r})), "p" + sys.argv[1], str(number), make_image(author=str(number)))
with ThreadPoolExecutor(4) as pool:
    list(pool.map(one, range(8)))
"""
    running = [subprocess.Popen([sys.executable, "-c", script, str(n)]) for n in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda n: push(layout(out), "t", str(n), make_image(author=str(n))), range(8)):
            pass
    assert [process.wait(60) for process in running] == [0, 0]
    assert sorted(names(out)) == sorted(f"{name}:{n}" for name in ("p0", "p1", "t") for n in range(8))
    assert not [name for name in files(out) if ".layerbuild-" in name]


@pytest.mark.parametrize("moment", range(1, 14))
def test_a_crash_at_any_point_leaves_a_layout_or_nothing(tmp_path: Path, moment: int) -> None:
    out = tmp_path / "out"
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from fixtures.registry import make_image
from test_destination_layout import layout, push
left = [{moment}]
def dying(name):
    work = getattr(os, name)
    def call(*args, **more):
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
        return work(*args, **more)
    setattr(os, name, call)
for name in ("replace", "rename", "mkdir", "fsync", "fchmod"):
    dying(name)
push(layout(Path({str(out)!r})), "a", "1", make_image())
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    if (out / "oci-layout").exists():
        assert json.loads((out / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
        for digest in names(out).values():
            manifest = json.loads((out / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())
            assert (out / "blobs" / "sha256" / manifest["config"]["digest"].removeprefix("sha256:")).is_file()
    for blob in (out / "blobs" / "sha256").glob("[0-9a-f]*"):
        assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    image = make_image()
    push(layout(out), "a", "1", image)
    assert names(out) == {"a:1": image.digest}


def test_room_is_what_the_disk_has(tmp_path: Path) -> None:
    free = LayoutDestination("oci:x", tmp_path / "not" / "there").room().free
    assert free is not None and abs(free - shutil.disk_usage(tmp_path).free) < 1 << 30

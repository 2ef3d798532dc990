"""s3:// against moto's server, ftp:// against a real one, and what never gets as far as fsspec."""

from __future__ import annotations

import hashlib
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import known_implementations

from fixtures.s3 import S3
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources import SCHEMES, Request, objectstore, source_for
from layerbuild.sources.base import Context
from layerbuild.sources.objects import parse

DATA = bytes(range(256)) * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


def resolve(context: Context, uri: str, **declared: Any) -> Pin:
    return source_for(uri, context).resolve(Request(uri=uri, **declared))


def fetch(context: Context, pin: Pin, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join(source_for(pin.source, context).open(pin, pin.files[0], offset=offset, length=length))


def pinned(uri: str, size: int | None = len(DATA), sha256: str = SHA256) -> Pin:
    return Pin(source=uri, files=(PinnedFile(path="x", content=Content(size=size, sha256=sha256)),))


@pytest.fixture
def bucket(s3: S3) -> S3:
    s3.bucket("models")
    return s3


# --- pins ------------------------------------------------------------------------------------------


def test_the_store_s_own_checksum_saves_the_download(context: Context, bucket: S3, notes: Any) -> None:
    bucket.put("models", "sd/night 1+2%20.safetensors", DATA, sha256=True)
    pin = resolve(context, "s3://models/sd/night 1+2%20.safetensors")
    assert pin.source == "s3://models/sd/night 1+2%20.safetensors"
    assert pin.files == (PinnedFile(path="night 1+2%20.safetensors", content=Content(size=len(DATA), sha256=SHA256)),)
    assert not notes.lines and not notes.tasks, "nothing was fetched"
    assert fetch(context, pin) == DATA


def test_without_one_it_is_fetched_once(context: Context, bucket: S3, notes: Any) -> None:
    bucket.put("models", "night.ckpt", DATA)
    pin = resolve(context, "s3://models/night.ckpt")
    assert pin.files[0].content == Content(size=len(DATA), sha256=SHA256)
    assert notes.lines == ["nobody publishes a digest of s3://models/night.ckpt: fetched once and recorded what came"]


def test_a_checksum_of_parts_is_none_of_the_file(context: Context, bucket: S3, notes: Any) -> None:
    parts = [b"x" * 5 * 1024 * 1024, b"y"]
    bucket.put_in_parts("models", "big", parts)
    pin = resolve(context, "s3://models/big")
    assert pin.files[0].content.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    assert notes.lines, "it had to be fetched"


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"ChecksumType": "FULL_OBJECT", "ETag": '"abc-2"'}, True),
        ({"ChecksumType": "COMPOSITE"}, False),
        ({"ETag": '"abc-2"'}, False),
        ({"ChecksumSHA256": "rf63/mA9DcSiU7Hb5qzIEr6o78kMwVoVIi0YtX4701Q=-2"}, False),
        ({"ChecksumSHA256": "AAAA"}, False),
        ({"ChecksumSHA256": "\N{SNOWMAN}"}, False),
        ({"ChecksumSHA256": None}, False),
    ],
)
def test_which_checksums_are_believed(changes: dict[str, Any], known: bool) -> None:
    answer = {"ChecksumSHA256": "rf63/mA9DcSiU7Hb5qzIEr6o78kMwVoVIi0YtX4701Q=", "ETag": '"abc"', **changes}
    assert (objectstore._whole_sha256(answer) is not None) == known


def test_a_version_is_pinned_where_the_bucket_has_them(context: Context, s3: S3) -> None:
    s3.bucket("kept", versions=True)
    version = s3.put("kept", "night", DATA)
    pin = resolve(context, "s3://kept/night")
    assert pin.source == f"s3://kept/night?versionId={version}"
    assert pin.files[0].path == "night"
    s3.put("kept", "night", b"another", sha256=True)
    assert fetch(context, pin) == DATA
    assert resolve(context, pin.source) == pin
    s3.client.delete_object(Bucket="kept", Key="night", VersionId=version)
    with pytest.raises(NotFound):
        fetch(context, pin)


def test_what_is_declared_in_full_needs_no_network(context: Context) -> None:
    pin = resolve(replace(context, offline=True), "s3://models/night", sha256=SHA256, size=7)
    assert pin == Pin(
        source="s3://models/night", files=(PinnedFile(path="night", content=Content(size=7, sha256=SHA256)),)
    )


def test_declared_digest_and_size_must_agree(context: Context, bucket: S3) -> None:
    bucket.put("models", "night", DATA, sha256=True)
    for declared in ({"sha256": "0" * 64}, {"size": 1}):
        with pytest.raises(ContentMismatch, match="is not what is declared"):
            resolve(context, "s3://models/night", **declared)


def test_an_object_that_changes_while_it_is_fetched(
    context: Context, bucket: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("models", "night", DATA)

    def keep(chunks: Iterator[bytes], name: str) -> Content:
        size = sum(map(len, chunks))
        bucket.put("models", "night", DATA[::-1])
        return Content(size=size, sha256=SHA256)

    with pytest.raises(ContentMismatch, match="is not what was pinned"):
        resolve(replace(context, keep=keep), "s3://models/night")


# --- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [7, 1000, 10**9])
@pytest.mark.parametrize(("offset", "length"), [(0, None), (3, 5), (0, 0), (100, 10**9), (len(DATA), None)])
def test_any_range(
    context: Context, bucket: S3, monkeypatch: pytest.MonkeyPatch, block: int, offset: int, length: int | None
) -> None:
    monkeypatch.setattr(objectstore, "BLOCK", block)
    data = DATA[:60] if block == 7 else DATA
    bucket.put("models", "night", data)
    stop = None if length is None else offset + length
    assert fetch(context, pinned("s3://models/night", len(data)), offset, length) == data[offset:stop]


def test_an_empty_object(context: Context, bucket: S3) -> None:
    bucket.put("models", "nothing", b"")
    pin = resolve(context, "s3://models/nothing")
    assert pin.files[0].content == Content(size=0, sha256=hashlib.sha256(b"").hexdigest())
    assert fetch(context, pin) == b""


@pytest.mark.parametrize("data", [b"shorter", DATA + b"longer", bytes(len(DATA))])
def test_a_replaced_object_is_noticed_before_it_is_fetched(context: Context, bucket: S3, data: bytes) -> None:
    bucket.put("models", "night", data, sha256=True)
    with pytest.raises(ContentMismatch, match="is not what was pinned"):
        next(iter(source_for("s3://x/y", context).open(pin := pinned("s3://models/night"), pin.files[0])))


def test_threads_share_nothing(context: Context, bucket: S3) -> None:
    for number in range(4):
        bucket.put("models", f"n{number}", DATA + bytes([number]))
    found: dict[int, bytes] = {}

    def run(number: int) -> None:
        found[number] = fetch(context, pinned(f"s3://models/n{number}", len(DATA) + 1))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: DATA + bytes([number]) for number in range(4)}


# --- what cannot be had ----------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["s3://models/none", "s3://none-at-all/none", "s3://models/night?versionId=none"])
def test_what_does_not_exist(context: Context, bucket: S3, uri: str) -> None:
    bucket.put("models", "night", DATA)
    with pytest.raises((NotFound, SourceError)) as caught:
        resolve(context, uri)
    assert isinstance(caught.value, NotFound) or "versionId" in uri
    with pytest.raises(SourceError):
        fetch(context, pinned(uri))


def test_no_login(context: Context, bucket: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AccessDenied, match="may not be read") as caught:
        resolve(context, "s3://models/night")
    assert "NoCredentialsError" in str(caught.value.cause)


def test_access_denied(context: Context, bucket: S3) -> None:
    import requests

    bucket.put("models", "night", DATA)
    # From now on moto asks who somebody is, and knows nobody.
    with requests.post(f"{bucket.url}/moto-api/reset-auth", data=b"0", timeout=10) as answer:
        assert answer.status_code == 200
    try:
        with pytest.raises(AccessDenied, match="may not be read") as caught:
            resolve(context, "s3://models/night")
    finally:
        with requests.post(f"{bucket.url}/moto-api/reset-auth", data=b"inf", timeout=10):
            pass
    assert S3.secret not in str(caught.value)


def test_nobody_listens(context: Context, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="cannot be reached"):
        resolve(context, "s3://models/night")


def test_offline(context: Context, bucket: S3) -> None:
    offline = replace(context, offline=True)
    with pytest.raises(Unreachable, match="not known here"):
        resolve(offline, "s3://models/night")
    with pytest.raises(Unreachable, match="not known here"):
        fetch(offline, pinned("s3://models/night"))


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("az", "azure"), ("abfs", "azure")])
def test_an_extra_that_is_missing(context: Context, monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, objectstore.EXTRAS[scheme][0], None)
    with pytest.raises(SourceError, match=f"what reads {scheme}:// is not installed") as caught:
        resolve(context, f"{scheme}://bucket/key")
    assert caught.value.hint == f"pip install 'layerbuild[{extra}]'"


def test_a_package_that_is_missing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ossfs", None)
    with pytest.raises(SourceError, match="what reads oss:// is not installed"):
        resolve(context, "oss://bucket/key")


# --- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "s3://",
            "s3://bucket",
            "s3://bucket/",
            "s3:///key",
            "s3://bucket//key",
            "s3://bucket/a/../b",
            "s3://bucket/./b",
        ),
        *(
            "s3://bucket/key?versionId=",
            "s3://bucket/key?versionId=a&b",
            "s3://bucket/key?x=1",
            "gs://bucket/key?versionId=1",
        ),
        *("s3://bucket/key#1", "s3://bucket/a::file:///etc/passwd", "s3://bucket/a\nb", "s3://bucket/a\\b"),
        *(
            "s3://user@bucket/key",
            f"ftp://me:{S3.secret}@host/x",
            f"az://c/key?sig={S3.secret}",
            f"sftp://a:{S3.secret}@h/x",
        ),
    ],
)
def test_addresses_that_are_none(context: Context, uri: str) -> None:
    with pytest.raises(SourceError, match="is not the address of an object") as caught:
        resolve(context, uri, sha256=SHA256, size=1)
    assert S3.secret not in str(caught.value)
    with pytest.raises(SourceError):
        fetch(context, pinned(uri))


def test_azure_writes_its_account_before_the_path() -> None:
    uri = "abfss://models@account.dfs.core.windows.net/night"
    assert parse(uri).uri == uri


def test_what_reads_this_machine_is_never_reached(context: Context, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"secret")
    ours = {scheme for scheme, name in SCHEMES.items() if name.endswith("ObjectSource")}
    assert ours - {"abfss"} <= set(known_implementations), "adlfs itself brings abfss"
    unsafe = {"asynclocal", "cached", "data", "dir", "file", "filecache", "generic", "local", "memory", "reference"}
    assert not ours & unsafe
    for scheme in sorted(set(known_implementations) - set(SCHEMES)):
        with pytest.raises(SourceError, match=r"there is no source for|it has no scheme"):
            resolve(context, f"{scheme}://{tmp_path}/x")


# --- any other scheme ------------------------------------------------------------------------------


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[str]:
    """An FTP server with one file, on a port of its own. Gives the address of its root."""
    with warnings.catch_warnings():
        # Before Python 3.12 it uses the standard library's asyncore, which was on its way out.
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import ThreadedFTPServer

    top = tmp_path / "ftp"
    (top / "pub").mkdir(parents=True)
    (top / "pub" / "night").write_bytes(DATA)

    class Handler(FTPHandler):  # type: ignore[misc]
        authorizer = DummyAuthorizer()

    Handler.authorizer.add_anonymous(str(top))
    server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
    stop = threading.Event()

    def serve() -> None:
        # Round by round: whoever closes it while it waits takes away what it waits on.
        while not stop.is_set():
            server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)

    thread = threading.Thread(target=serve)
    thread.start()
    host, port = server.address
    yield f"ftp://{host}:{port}"
    stop.set()
    thread.join()
    server.close_all()


def test_what_fsspec_reads_otherwise(context: Context, ftp: str, notes: Any) -> None:
    pin = resolve(context, f"{ftp}/pub/night")
    assert pin.source == f"{ftp}/pub/night"
    assert pin.files == (PinnedFile(path="night", content=Content(size=len(DATA), sha256=SHA256)),)
    assert notes.lines
    assert fetch(context, pin) == DATA
    assert fetch(context, pin, 10, 20) == DATA[10:30]
    with pytest.raises(NotFound):
        resolve(context, f"{ftp}/pub/none")
    with pytest.raises(SourceError, match="is a directory"):
        resolve(context, f"{ftp}/pub")

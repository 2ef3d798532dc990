"""`hf://` against a Hub on two ports."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.hub import Hub, git_blob
from fixtures.web import Answer
from layerbuild.errors import AccessDenied, ContentMismatch, LayerbuildError, NotFound, SourceError, Unreachable
from layerbuild.model import Content, Pin, PinnedFile
from layerbuild.sources import Request, source_for
from layerbuild.sources.base import Context, verified
from layerbuild.sources.hub import Hub as HubClient
from layerbuild.sources.huggingface import parse

BIG = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BIG).hexdigest()
FILES = {"config.json": b"{}", "vocab/merges.txt": b"a b\n"}
COMMIT = "a" * 40


@pytest.fixture
def at_hub(context: Context, hub: Hub) -> Context:
    """The context of somebody without a token."""
    return replace(context, environ={"HF_ENDPOINT": hub.endpoint + "/"})


@pytest.fixture
def with_token(at_hub: Context, hub: Hub) -> Context:
    return replace(at_hub, environ={**at_hub.environ, "HF_TOKEN": f" {hub.token}\n"})


def resolve(context: Context, uri: str, **more: Any) -> Pin:
    return source_for(uri, context).resolve(Request(uri=uri, **more))


def fetch(context: Context, pin: Pin, file: PinnedFile, **more: Any) -> bytes:
    return b"".join(source_for(pin.source, context).open(pin, file, **more))


def test_a_snapshot(at_hub: Context, hub: Hub) -> None:
    commit = hub.add("org/name", files=FILES, lfs={"model.bin": BIG})
    pin = resolve(at_hub, "hf://org/name", absent=("added_tokens.json",))
    assert pin == Pin(
        source=f"hf://org/name@{commit}",
        revision=commit,
        ref="main",
        files=(
            PinnedFile(path="config.json", content=Content(size=2, git_blob=git_blob(b"{}"))),
            PinnedFile(path="model.bin", content=Content(size=len(BIG), sha256=SHA256)),
            PinnedFile(path="vocab/merges.txt", content=Content(size=4, git_blob=git_blob(b"a b\n"))),
        ),
        absent=("added_tokens.json",),
    )
    assert [r.path for r in hub.requests] == ["/api/models/org/name/revision/main"]
    assert hub.requests[0].query == "blobs=true"
    contents = {f.path: b"".join(verified([fetch(at_hub, pin, f)], f.content, what="it")) for f in pin.files}
    assert contents == {**FILES, "model.bin": BIG}
    assert all(r.headers["accept-encoding"] == "identity" for r in hub.requests)


def test_a_file(at_hub: Context, hub: Hub) -> None:
    commit = hub.add("org/name", files=FILES, lfs={"sub/model.bin": BIG})
    pin = resolve(at_hub, "hf://org/name@main/sub/model.bin", sha256=SHA256, size=len(BIG))
    assert pin.source == f"hf://org/name@{commit}/sub/model.bin"
    assert pin.files == (PinnedFile(path="sub/model.bin", content=Content(size=len(BIG), sha256=SHA256)),)
    assert sum(n for path, n in hub.sent.items() if not path.startswith("/api/")) == 0
    assert fetch(at_hub, pin, pin.files[0]) == BIG
    assert fetch(at_hub, pin, pin.files[0], offset=100, length=50) == BIG[100:150]
    assert hub.cdn_requests[-1].headers["range"] == "bytes=100-149"


def test_a_commit_has_no_ref(at_hub: Context, hub: Hub) -> None:
    commit = hub.add("org/name", files=FILES)
    later = hub.add("org/name", files={"new": b"new"})
    assert resolve(at_hub, f"hf://org/name@{commit.upper()}").ref is None
    assert resolve(at_hub, f"hf://org/name@{commit}").revision == commit
    assert resolve(at_hub, "hf://org/name@main").revision == later


def test_a_ref_with_a_slash(at_hub: Context, hub: Hub) -> None:
    commit = hub.add("org/name", files=FILES, ref="refs/pr/1")
    pin = resolve(at_hub, "hf://org/name@refs%2Fpr%2F1/config.json")
    assert (pin.revision, pin.ref) == (commit, "refs/pr/1")


def test_a_dataset(at_hub: Context, hub: Hub) -> None:
    commit = hub.add("org/data", files=FILES, lfs={"x.parquet": BIG}, kind="datasets")
    pin = resolve(at_hub, "hf://datasets/org/data")
    assert pin.source == f"hf://datasets/org/data@{commit}"
    assert {f.path: fetch(at_hub, pin, f) for f in pin.files} == {**FILES, "x.parquet": BIG}


def test_a_space(at_hub: Context, hub: Hub) -> None:
    commit = hub.add("org/app", files=FILES, kind="spaces")
    pin = resolve(at_hub, "hf://spaces/org/app/config.json")
    assert pin.source == f"hf://spaces/org/app@{commit}/config.json"
    assert fetch(at_hub, pin, pin.files[0]) == b"{}"


def test_a_tag_and_a_pull_request(at_hub: Context, hub: Hub) -> None:
    main = hub.add("org/name", files=FILES)
    tag = hub.add("org/name", files={"config.json": b"{1}"}, ref="v1.0")
    request = hub.add("org/name", files={"config.json": b"{12}"}, ref="refs/pr/12")
    found = [resolve(at_hub, f"hf://org/name@{r}/config.json") for r in ("main", "v1.0", "refs/pr/12", tag)]
    assert [(pin.revision, pin.ref) for pin in found] == [
        (main, "main"),
        (tag, "v1.0"),
        (request, "refs/pr/12"),
        (tag, None),
    ]
    assert [fetch(at_hub, pin, pin.files[0]) for pin in found] == [b"{}", b"{1}", b"{12}", b"{1}"]


def test_a_repository_is_asked_once(at_hub: Context, hub: Hub) -> None:
    lfs = {f"{number}.bin": b"%d" % number for number in range(40)}
    commit = hub.add("org/name", lfs=lfs)
    hub.add("org/other", lfs=lfs)
    uris = [f"hf://org/{name}@main/{path}" for name in ("name", "other") for path in lfs]
    with ThreadPoolExecutor(16) as pool:
        pins = list(pool.map(lambda uri: resolve(at_hub, uri), uris))
    assert [pin.files[0].path for pin in pins] == [*lfs, *lfs]
    assert hub.counted() == {"metadata": 2}
    # The branch's answer says what its commit holds.
    assert resolve(at_hub, f"hf://org/name@{commit}/1.bin").revision == commit
    assert hub.counted() == {"metadata": 2}
    assert resolve(replace(at_hub), "hf://org/name@main/1.bin") in pins
    assert hub.counted() == {"metadata": 3}, "another context has another token"


def test_a_refusal_is_asked_for_once(at_hub: Context, hub: Hub) -> None:
    for _ in range(3):
        with pytest.raises(AccessDenied, match="unknown or private"):
            resolve(at_hub, "hf://org/missing")
    assert hub.counted() == {"metadata": 1}


@pytest.fixture
def large(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository with more files than one answer names; its commit."""
    monkeypatch.setattr("layerbuild.sources.hub._RELIABLE", 3)
    hub.named, hub.page = 3, 4
    return hub.add(
        "org/large", files={**FILES, "sub/config.json": b"[]"}, lfs={f"{n}.bin": b"%d" % n for n in range(9)}
    )


def test_a_listing_of_several_pages(at_hub: Context, hub: Hub, large: str) -> None:
    pin = resolve(at_hub, "hf://org/large")
    assert len(pin.files) == 12 and pin.revision == large
    assert {f.path: fetch(at_hub, pin, f) for f in pin.files} == {
        **FILES,
        "sub/config.json": b"[]",
        **{f"{n}.bin": b"%d" % n for n in range(9)},
    }
    # 12 files and two directories: four pages after the first answer.
    assert hub.counted()["metadata"] == 5
    assert {f.content for f in pin.files if f.path == "8.bin"} == {
        Content(size=1, sha256=hashlib.sha256(b"8").hexdigest())
    }


def test_a_mirror_that_tells_no_digests(at_hub: Context, hub: Hub) -> None:
    commit = hub.add("org/name", files=FILES, lfs={"model.bin": BIG})
    names = [{"rfilename": path} for path in ("config.json", "model.bin", "vocab/merges.txt")]
    hub.script("/api/models/org/name/revision/main", json.dumps({"sha": commit, "siblings": names}).encode())
    bare = resolve(at_hub, "hf://org/name")
    assert hub.counted() == {"metadata": 2}
    hub.script("/api/models/org/name/revision/main")
    assert resolve(replace(at_hub), "hf://org/name") == bare and len(bare.files) == 3


def _pages(hub: Hub, commit: str, *answers: Answer | bytes) -> None:
    hub.script(f"/api/models/org/large/tree/{commit}", *answers)


def test_the_token_stays_where_a_listing_leads_elsewhere(
    with_token: Context, hub: Hub, large: str, elsewhere: Any
) -> None:
    link = f'<{elsewhere.url}/api/x?cursor=abc&limit=4>; rel="next"'
    entry = {"type": "file", "path": "a", "size": 1, "oid": "0" * 40}
    rest = {**entry, "path": "b"}
    _pages(hub, large, Answer(body=json.dumps([entry]).encode(), headers={"Link": link}), json.dumps([rest]).encode())
    assert [f.path for f in resolve(with_token, "hf://org/large").files] == ["a", "b"]
    assert elsewhere.requests == []
    assert hub.requests[-1].query == "recursive=true&cursor=abc&limit=4"


@pytest.mark.parametrize("link", ["x?cursor=", "x", "?limit=3", "x?cursor=1", "http://[::1?cursor=2"])
def test_a_listing_that_never_ends(at_hub: Context, hub: Hub, large: str, link: str) -> None:
    _pages(hub, large, Answer(body=b"[]", headers={"Link": f'<{link}>; rel="next"'}))
    with pytest.raises(SourceError, match="listing has no end"):
        resolve(at_hub, "hf://org/large")
    assert hub.counted()["metadata"] <= 3


def test_all_pages_together_are_bounded(at_hub: Context, hub: Hub, large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbuild.sources.hub._LARGEST_LISTING", 5000)
    pages = (Answer(body=b"[]" + b" " * 2998, headers={"Link": f"<?cursor={n}>; rel=next"}) for n in range(9))
    _pages(hub, large, *pages)
    with pytest.raises(SourceError, match="more than 2000 bytes"):
        resolve(at_hub, "hf://org/large")


@pytest.mark.parametrize(
    "entries",
    [
        *({}, [None], [{"type": "file"}], [{"type": "file", "path": "a", "size": 1, "oid": "x"}]),
        [{"type": "file", "path": "a", "size": 1, "oid": "0" * 40, "lfs": {"oid": "0" * 40, "size": 1}}],
        [{"type": "file", "path": p, "size": 1, "oid": "0" * 40} for p in ("a", "a/b")],
    ],
)
def test_pages_that_make_no_sense(at_hub: Context, hub: Hub, large: str, entries: Any) -> None:
    _pages(hub, large, json.dumps(entries).encode())
    with pytest.raises(SourceError, match="makes no sense"):
        resolve(at_hub, "hf://org/large")


def test_a_name_of_one_word(at_hub: Context, hub: Hub) -> None:
    hub.add("bert-base-uncased", files=FILES)
    assert len(resolve(at_hub, "hf://bert-base-uncased").files) == 2
    pin = resolve(at_hub, "hf://bert-base-uncased@main/vocab/merges.txt")
    assert fetch(at_hub, pin, pin.files[0]) == b"a b\n"


def test_what_is_declared_in_full_needs_no_network(context: Context) -> None:
    offline = replace(context, offline=True)
    uri = f"hf://org/name@{COMMIT}/v1-5.safetensors"
    pin = resolve(offline, uri, sha256=SHA256.upper(), size=7)
    assert pin.source == uri
    assert pin.revision == COMMIT
    assert pin.files == (PinnedFile(path="v1-5.safetensors", content=Content(size=7, sha256=SHA256)),)


def test_offline(at_hub: Context, hub: Hub) -> None:
    offline = replace(at_hub, offline=True)
    with pytest.raises(Unreachable, match="offline"):
        resolve(offline, f"hf://org/name@{COMMIT}")
    with pytest.raises(Unreachable, match="offline"):
        fetch(offline, *_pinned())
    assert hub.requests == []


def _pinned() -> tuple[Pin, PinnedFile]:
    file = PinnedFile(path="model.bin", content=Content(size=len(BIG), sha256=SHA256))
    return Pin(source=f"hf://org/name@{COMMIT}", files=(file,), revision=COMMIT), file


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 1}])
def test_another_content_than_declared(at_hub: Context, hub: Hub, wrong: dict[str, Any]) -> None:
    hub.add("org/name", lfs={"model.bin": BIG})
    with pytest.raises(ContentMismatch, match="not what is declared"):
        resolve(at_hub, "hf://org/name@main/model.bin", **wrong)


def test_a_declared_digest_of_a_small_file_is_kept(at_hub: Context, hub: Hub) -> None:
    hub.add("org/name", files=FILES)
    sha256 = hashlib.sha256(b"{}").hexdigest()
    pin = resolve(at_hub, "hf://org/name@main/config.json", sha256=sha256)
    assert pin.files[0].content == Content(size=2, sha256=sha256, git_blob=git_blob(b"{}"))


def test_files_are_chosen(at_hub: Context, hub: Hub) -> None:
    hub.add("org/name", files=FILES, lfs={"model.bin": BIG})
    pin = resolve(at_hub, "hf://org/name", files=("*.json", "vocab/merges.txt"))
    assert [f.path for f in pin.files] == ["config.json", "vocab/merges.txt"]
    with pytest.raises(NotFound, match=r"has no confg\.json") as caught:
        resolve(at_hub, "hf://org/name", files=("confg.json",))
    assert "config.json" in (caught.value.hint or "")
    with pytest.raises(NotFound, match="has no vocab/merge"):
        resolve(at_hub, "hf://org/name@main/vocab/merge")
    with pytest.raises(SourceError, match="chooses no file"):
        resolve(at_hub, "hf://org/name", files=("config.json", "!*"))


def test_absent_names_must_be_absent(at_hub: Context, hub: Hub) -> None:
    hub.add("org/name", files=FILES)
    with pytest.raises(SourceError, match=r"has config\.json"):
        resolve(at_hub, "hf://org/name", absent=("nothing", "config.json"))
    with pytest.raises(SourceError, match="no layer may hold"):
        resolve(at_hub, "hf://org/name", absent=("../x",))
    assert resolve(at_hub, "hf://org/name", absent=("b", "a", "b")).absent == ("a", "b")


def test_an_unknown_repository(at_hub: Context, with_token: Context, hub: Hub) -> None:
    with pytest.raises(AccessDenied, match="unknown or private") as caught:
        resolve(at_hub, "hf://org/missing")
    assert "HF_TOKEN" in (caught.value.hint or "")
    with pytest.raises(NotFound, match="unknown or private"):
        resolve(with_token, "hf://org/missing")


def test_a_private_repository(at_hub: Context, with_token: Context, hub: Hub) -> None:
    hub.add("org/secret", lfs={"model.bin": BIG}, private=True)
    with pytest.raises(AccessDenied, match="unknown or private"):
        resolve(at_hub, "hf://org/secret")
    pin = resolve(with_token, "hf://org/secret")
    assert fetch(with_token, pin, pin.files[0]) == BIG
    assert all("authorization" not in r.headers for r in hub.cdn_requests)
    with pytest.raises(AccessDenied, match="unknown or private"):
        fetch(at_hub, pin, pin.files[0])


def test_a_gated_repository(at_hub: Context, with_token: Context, hub: Hub) -> None:
    hub.add("org/gated", lfs={"model.bin": BIG}, gated=True)
    pin = resolve(at_hub, "hf://org/gated")
    with pytest.raises(AccessDenied, match="is gated") as caught:
        fetch(at_hub, pin, pin.files[0])
    assert f"{hub.endpoint}/org/gated" in (caught.value.hint or "")
    assert "HF_TOKEN" in (caught.value.hint or "")
    assert fetch(with_token, pin, pin.files[0]) == BIG


def test_revisions_and_files_that_are_gone(at_hub: Context, hub: Hub) -> None:
    hub.add("org/name", files=FILES)
    with pytest.raises(NotFound, match="no such revision"):
        resolve(at_hub, "hf://org/name@v9")
    pin = resolve(at_hub, "hf://org/name")
    with pytest.raises(NotFound, match="no such file"):
        fetch(at_hub, pin, PinnedFile(path="gone", content=Content(size=1, sha256=SHA256)))


def test_the_token_is_never_shown(with_token: Context, hub: Hub) -> None:
    hub.add("org/name", lfs={"model.bin": BIG})
    pin = resolve(with_token, "hf://org/name")
    sha = pin.files[0].content.sha256
    hub.script(f"/lfs/{sha}", Answer(status=403))
    with pytest.raises(AccessDenied) as caught:
        fetch(with_token, pin, pin.files[0])
    assert "NeverBeSeen" not in str(caught.value)
    assert "never-be-seen" not in str(caught.value)


def test_the_token_is_in_no_repr(with_token: Context, hub: Hub) -> None:
    remote = HubClient(with_token).file(parse("hf://org/name").repository, COMMIT, "x", None)
    assert hub.token in remote.headers["Authorization"]
    assert hub.token not in repr(remote)
    assert hub.token not in repr(with_token)


def test_a_broken_download_asks_the_hub_again(at_hub: Context, hub: Hub) -> None:
    hub.add("org/name", lfs={"model.bin": BIG})
    pin = resolve(at_hub, "hf://org/name")
    hub.script(f"/lfs/{SHA256}", Answer(body=BIG, cut=1000), Answer(body=BIG))
    assert fetch(at_hub, pin, pin.files[0]) == BIG
    assert len([r for r in hub.requests if "/resolve/" in r.path]) == 2
    assert hub.cdn_requests[1].headers["range"] == "bytes=1000-"


def test_where_tokens_come_from(context: Context, hub: Hub, tmp_path: Any) -> None:
    hub.add("org/private", files=FILES, private=True)
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text(hub.token + "\n")
    good = [
        {"HF_TOKEN": hub.token, "HUGGING_FACE_HUB_TOKEN": "wrong"},
        {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": hub.token, "HF_HOME": "/nowhere"},
        {"HF_HOME": str(tmp_path / ".cache" / "huggingface")},
        {"XDG_CACHE_HOME": str(tmp_path / ".cache")},
        {"HOME": str(tmp_path)},
    ]
    for environ in good:
        asker = replace(context, environ={"HF_ENDPOINT": hub.endpoint, **environ})
        assert len(resolve(asker, "hf://org/private").files) == 2
    for environ in ({}, {"HF_TOKEN": "wrong", "HOME": str(tmp_path)}, {"HF_HOME": "/nowhere"}):
        asker = replace(context, environ={"HF_ENDPOINT": hub.endpoint, **environ})
        with pytest.raises(AccessDenied):
            resolve(asker, "hf://org/private")


@pytest.mark.parametrize("token", ["two words", "new\nline", "ünicode"])
def test_a_token_that_cannot_be_one(context: Context, hub: Hub, token: str) -> None:
    asker = replace(context, environ={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token})
    with pytest.raises(SourceError, match="HF_TOKEN does not hold a token") as caught:
        resolve(asker, "hf://org/name")
    assert token not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    "endpoint", ["huggingface.co", "ftp://host", "https://u:hunter2@host", "https://host:x", "https://[::1", "https://"]
)
def test_an_endpoint_that_cannot_be_one(context: Context, endpoint: str) -> None:
    with pytest.raises(SourceError, match="HF_ENDPOINT") as caught:
        resolve(replace(context, environ={"HF_ENDPOINT": endpoint}), "hf://org/name")
    assert "hunter2" not in str(caught.value)


def test_no_token_over_plain_http(context: Context) -> None:
    for endpoint, sent in (("http://mirror.lan", False), ("https://mirror.lan", True), ("http://localhost:1", True)):
        client = HubClient(replace(context, environ={"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_x"}))
        remote = client.file(parse("hf://org/name").repository, COMMIT, "x", None)
        assert ("Authorization" in remote.headers) is sent


GOOD: dict[str, Any] = {"rfilename": "x", "size": 1, "blobId": "0" * 40}


@pytest.mark.parametrize(
    "siblings",
    [
        [None],
        [{}],
        [{**GOOD, "rfilename": 7}],
        [{**GOOD, "size": -1}],
        [{**GOOD, "size": True}],
        [{**GOOD, "size": 1.5}],
        [{**GOOD, "size": 2**70}],
        [{**GOOD, "size": None}],
        [{**GOOD, "blobId": "0" * 39}],
        [{**GOOD, "blobId": "G" * 40}],
        [{**GOOD, "lfs": {}}],
        [{**GOOD, "lfs": "x"}],
        [{**GOOD, "lfs": {"sha256": "0" * 64}}],
        [{**GOOD, "lfs": {"sha256": "A" * 64, "size": 1}}],
        [{"rfilename": "x"}, GOOD],
        [GOOD, GOOD],
        [GOOD, {**GOOD, "rfilename": "x/y"}],
    ],
)
def test_listings_that_make_no_sense(at_hub: Context, hub: Hub, siblings: list[Any]) -> None:
    hub.hostile("org/bad", siblings)
    with pytest.raises(SourceError, match="makes no sense"):
        resolve(at_hub, "hf://org/bad")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a\\..\\b", "a\nb", "", "x" * 300])
def test_listings_with_unsafe_paths(at_hub: Context, hub: Hub, path: str) -> None:
    hub.hostile("org/bad", [GOOD, {**GOOD, "rfilename": path}])
    with pytest.raises(SourceError, match="no layer may hold"):
        resolve(at_hub, "hf://org/bad@main/x")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"sha": 1}', b"\xff", b"[" * 100_000, b"9" * 10_000]
    + [json.dumps({"sha": sha, "siblings": []}).encode() for sha in ("main", "A" * 40, None, COMMIT[1:])]
    + [json.dumps({"sha": COMMIT, "siblings": s}).encode() for s in (None, {}, "x")],
)
def test_answers_that_make_no_sense(at_hub: Context, hub: Hub, body: bytes) -> None:
    hub.script("/api/models/org/name/revision/main", body)
    with pytest.raises(SourceError, match="makes no sense"):
        resolve(at_hub, "hf://org/name")


def test_another_commit_than_asked_for(at_hub: Context, hub: Hub) -> None:
    other = json.dumps({"sha": "b" * 40, "siblings": [GOOD]}).encode()
    hub.script(f"/api/models/org/name/revision/{COMMIT}", other)
    with pytest.raises(SourceError, match="makes no sense"):
        resolve(at_hub, f"hf://org/name@{COMMIT}")


def test_an_endless_answer(at_hub: Context, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbuild.sources.hub._LARGEST_LISTING", 1000)
    hub.script("/api/models/org/name/revision/main", Answer(body=b" " * 1001, length=False))
    with pytest.raises(SourceError, match="more than 1000 bytes"):
        resolve(at_hub, "hf://org/name")


def test_a_truncated_answer_is_asked_for_again(at_hub: Context, hub: Hub) -> None:
    good = json.dumps({"sha": COMMIT, "siblings": [GOOD]}).encode()
    hub.script("/api/models/org/name/revision/main", Answer(body=good, cut=9), Answer(body=good))
    assert resolve(at_hub, "hf://org/name").revision == COMMIT


def test_a_hub_in_trouble(at_hub: Context, hub: Hub) -> None:
    hub.script("/api/models/org/name/revision/main", Answer(status=503))
    with pytest.raises(Unreachable, match="503"):
        resolve(at_hub, "hf://org/name")
    assert len(hub.requests) == 3


def test_what_the_hub_says_is_made_harmless(at_hub: Context, hub: Hub) -> None:
    headers = {"X-Error-Code": "Odd", "X-Error-Message": "\x1b[2Jcleared" + "x" * 5000}
    hub.script("/api/models/org/name/revision/main", Answer(status=404, headers=headers))
    with pytest.raises(NotFound) as caught:
        resolve(at_hub, "hf://org/name")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_declarations_that_make_no_sense(at_hub: Context) -> None:
    with pytest.raises(SourceError, match="is a snapshot"):
        resolve(at_hub, "hf://org/name", sha256=SHA256)
    with pytest.raises(SourceError, match="is one file"):
        resolve(at_hub, "hf://org/name@main/x", files=("x",))


@pytest.mark.parametrize(
    ("uri", "name", "revision", "path"),
    [
        ("hf://org/name", "org/name", "main", None),
        ("hf://org/name@v1", "org/name", "v1", None),
        ("hf://org/name@v1/a/b", "org/name", "v1", "a/b"),
        ("hf://org/name/a/b@2x.png", "org/name", "main", "a/b@2x.png"),
        ("hf://org/name@v1/b@2x.png", "org/name", "v1", "b@2x.png"),
        ("hf://xlm-roberta-large", "xlm-roberta-large", "main", None),
        ("hf://bert@v1/x", "bert", "v1", "x"),
        ("hf://datasets/org/name/x", "org/name", "main", "x"),
        ("hf://datasets/squad", "squad", "main", None),
        ("hf://org/name@refs%2Fpr%2F1", "org/name", "refs/pr/1", None),
        ("hf://org/name@refs/pr/1", "org/name", "refs/pr/1", None),
        ("hf://org/name@refs/pr/12/a/b@2x", "org/name", "refs/pr/12", "a/b@2x"),
        ("hf://datasets/org/name@refs/convert/parquet/x", "org/name", "refs/convert/parquet", "x"),
        ("hf://org/name@refs/pr/x", "org/name", "refs", "pr/x"),
        ("hf://org/name@refs/pr/1x", "org/name", "refs", "pr/1x"),
        ("hf://org/name@%72efs/pr/1", "org/name", "refs", "pr/1"),
        ("hf://datasets", "datasets", "main", None),
        ("hf://spaces/org/name@v1/x", "org/name", "v1", "x"),
        ("hf://org/na.m_e-1@v1", "org/na.m_e-1", "v1", None),
    ],
)
def test_addresses(uri: str, name: str, revision: str, path: str | None) -> None:
    address = parse(uri)
    assert (address.repository.name, address.revision, address.path) == (name, revision, path)
    kind = uri.split("/")[2]
    assert address.repository.type == (kind if kind in ("datasets", "spaces") and uri.count("/") > 2 else "models")


@pytest.mark.parametrize(
    "uri",
    [
        *("hf:", "hf://", "hf://org/", "hf:///name", "hf://org/name@", "hf://org/name@/x", "hf://org/name@v/"),
        *("hf://org/name/", "hf://../name", "hf://org/..", "hf://or g/name", "hf://org/name@../x", "hf://org/na--me"),
        *("hf://org/name@refs/pr/1/", "hf://org/name@refs/pr/1/../x", "hf://datasets/", "hf://spaces/"),
        *("hf://org/name@v/../x", "hf://a/b/c@v1/../x", "hf://org/name@%00", "hf://org/name?x", "hf://org/name@v//x"),
    ],
)
def test_what_is_no_address(uri: str) -> None:
    with pytest.raises(SourceError):
        parse(uri)


@given(st.text(alphabet="abA0/@.%2F- ?#\\\n", max_size=40))
def test_any_address_is_parsed_or_refused(text: str) -> None:
    try:
        address = parse("hf://" + text)
    except LayerbuildError:
        return
    again = parse(address.at(COMMIT))
    assert (again.repository, again.revision, again.path) == (address.repository, COMMIT, address.path)


def test_a_listing_of_pages_without_files_has_an_end(
    at_hub: Context, hub: Hub, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerbuild.sources.hub._MOST_PAGES", 5)
    _pages(hub, large, *(Answer(body=b"[]", headers={"Link": f"<?cursor={n}>; rel=next"}) for n in range(9)))
    with pytest.raises(SourceError, match="makes no sense"):
        resolve(at_hub, "hf://org/large")

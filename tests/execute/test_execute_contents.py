"""Contents on demand: from every kind of source into a fresh store, checked on the way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders import facts_of, git_blob, sha256
from execute.conftest import Works
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.project import BIG, safetensors
from fixtures.web import Web
from layerbuild.errors import ContentMismatch, LockError, NotFound, StoreError, Unreachable
from layerbuild.execute.contents import read_exactly
from layerbuild.execute.parallel import in_threads
from layerbuild.lockmerge import merge_facts
from layerbuild.lockmodel import Lock
from layerbuild.model import Content, Facts
from layerbuild.store import local, reading
from layerbuild.store.local import _SAME_INSTANT_NS

_RECIPE = "name: one\nwebui: {root: /w}\nlayers: "
_MODEL = safetensors(3000, {"a": "b"})


def _named(data: bytes) -> Content:
    return Content(size=len(data), sha256=sha256(data))


class TestMergeFacts:
    KEY = "a" * 64

    def test_what_both_know(self) -> None:
        one, other = Facts(size=3, safetensors=False), Facts(size=3, git_blob="b" * 40)
        assert merge_facts(self.KEY, one, other) == Facts(size=3, safetensors=False, git_blob="b" * 40)
        assert merge_facts(self.KEY, None, other) is other and merge_facts(self.KEY, one, None) is one
        assert merge_facts(self.KEY, None, None) is None

    @pytest.mark.parametrize(
        "other",
        [
            Facts(size=4),
            Facts(size=3, safetensors=True),
            Facts(size=3, addnet="c" * 64),
            Facts(size=3, header_size=1),
            Facts(size=3, metadata="{}"),
        ],
    )
    def test_contradictions(self, other: Facts) -> None:
        one = Facts(size=3, safetensors=False, addnet="b" * 64, header_size=0, metadata='{"a":"b"}')
        with pytest.raises(LockError, match=f"two different facts about {'a' * 16}"):
            merge_facts(self.KEY, one, other)


class TestThreads:
    def test_results_keep_their_order(self) -> None:
        assert in_threads(lambda n: n * n, list(range(50)), parallel=8) == [n * n for n in range(50)]
        assert in_threads(lambda n: n, []) == []

    def test_first_failure_ends_it(self) -> None:
        done: list[int] = []

        def work(number: int) -> None:
            if number == 0:
                raise NotFound("the first")
            done.append(number)

        with pytest.raises(NotFound, match="the first"):
            in_threads(work, [0, *range(1, 1000)], parallel=1)
        assert len(done) < 1000

    def test_interrupt_does_not_wait(self) -> None:
        free = threading.Event()

        def work(number: int) -> None:
            if number == 0:
                raise KeyboardInterrupt
            free.wait(30)

        try:
            with pytest.raises(KeyboardInterrupt):
                in_threads(work, [1, 0, 2, 3], parallel=2)
            assert not free.is_set()
        finally:
            free.set()

    def test_read_exactly_closes(self) -> None:
        closed = []

        def source() -> object:
            try:
                yield b"abc"
                yield b"def"
            finally:
                closed.append(True)

        assert read_exactly(source(), 4) == b"abcd" and closed == [True]  # type: ignore[arg-type]
        assert read_exactly(iter([b"ab"]), 4) == b"ab"


class TestOrigins:
    def test_local_file_lies_where_it_lies(self, new_works: Callable[[str], Works]) -> None:
        works = new_works("first")
        path = works.write("sd.safetensors", _MODEL)
        files = "f: {kind: files, files: {/opt/sd: file:sd.safetensors}}\n"
        lock = works.lock(works.images(files, "name: one\nlayers: [f]\n"))
        fresh = new_works("fresh")
        contents = fresh.contents(lock)
        assert contents.missing([_named(_MODEL)]) == [_named(_MODEL)]
        contents.ensure([_named(_MODEL), _named(_MODEL)])
        assert b"".join(contents.open(_named(_MODEL))) == _MODEL
        assert not list((fresh.store.root / "files").iterdir())
        path.write_bytes(_MODEL[:-1] + b"\0")
        with pytest.raises(ContentMismatch, match=r"f: file:sd\.safetensors .* has changed since it was locked"):
            contents.ensure([_named(_MODEL)])

    def test_local_files_are_read_once_and_no_others(
        self, new_works: Callable[[str], Works], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        works = new_works("first")
        data = {f"file{number}": b"%d" % number * 100 for number in range(6)}
        for name, content in data.items():
            works.write(f"clip/{name}", content)
        source = f"source: file:clip, repository: a/b, revision: {'a' * 40}"
        lock = works.lock(works.images(f"c: {{kind: huggingface, {source}}}\n", "name: one\nlayers: [c]\n"))
        fresh = new_works("fresh")
        read: list[str] = []
        original = fresh.store.arriving_local
        monkeypatch.setattr(
            fresh.store, "arriving_local", lambda path, *a, **k: (read.append(path.name), original(path, *a, **k))[1]
        )
        fresh.contents(lock).ensure(map(_named, list(data.values())[:4]))
        assert sorted(read) == sorted(data)[:4]
        fresh.contents(lock).ensure(map(_named, data.values()))
        assert sorted(read) == sorted(data)

    def test_folder_of_a_thousand_files_is_locked_again_without_reading_one(
        self, works: Works, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(1000):
            works.write(f"models/{number:04}", b"%d" % number * 9)
        source = f"source: file:models, repository: a/b, revision: {'a' * 40}"
        images = works.images(f"m: {{kind: huggingface, {source}}}\n", "name: one\nlayers: [m]\n")
        time.sleep(2 * _SAME_INSTANT_NS / 1e9)
        first = works.lock(images)
        read: list[Path] = []
        monkeypatch.setattr(local, "read", lambda path, offset: (read.append(path), reading.read(path, offset))[1])
        # Without the old lock every pin is taken anew.
        assert works.lock(images) == first and len(first.layers["m"].pins["snapshot"].files) == 1000
        assert read == []
        works.write("models/0500", b"another")
        again = works.lock(images)
        assert [path.name for path in read] == ["0500"] and again != first

    def test_web(self, new_works: Callable[[str], Works], web: Web) -> None:
        url = web.route("/file.bin", b"from the web")
        files = f"f: {{kind: files, files: {{/opt/x: {{source: '{url}', sha256: {sha256(b'from the web')}}}}}}}\n"
        works = new_works("first")
        lock = works.lock(works.images(files, "name: one\nlayers: [f]\n"))
        fresh = new_works("fresh")
        fresh.contents(lock).ensure([_named(b"from the web")])
        assert b"".join(fresh.store.open(_named(b"from the web"))) == b"from the web"
        web.route("/file.bin", b"From the web")
        with pytest.raises(ContentMismatch, match=r"f \(.*\) is not what was pinned"):
            new_works("third").contents(lock).ensure([_named(b"from the web")])

    def test_hub_and_facts_on_the_way(self, new_works: Callable[[str], Works], hub: Hub) -> None:
        hub.add("acme/sd", lfs={"sd.safetensors": _MODEL}, files={"config.json": b"{}"})
        works = new_works("first")
        works.environ["HF_ENDPOINT"] = hub.endpoint
        lock = works.lock(works.images("c: {kind: huggingface, source: hf://acme/sd@main}\n", "name: o\nlayers: [c]\n"))
        fresh = new_works("fresh")
        fresh.environ["HF_ENDPOINT"] = hub.endpoint
        small = Content(size=2, git_blob=git_blob(b"{}"))
        fresh.contents(lock).ensure([_named(_MODEL), small])
        assert b"".join(fresh.store.open(small)) == b"{}"
        facts = fresh.store.facts(sha256(_MODEL))
        assert facts is not None and facts.metadata == '{"a":"b"}' and facts.addnet is None
        # The digest behind the header is computed for who needs it only.
        contents = new_works("third").contents(lock)
        contents._context.environ["HF_ENDPOINT"] = hub.endpoint  # type: ignore[index]
        contents.wanted = frozenset({sha256(_MODEL)})
        assert b"".join(contents.open(_named(_MODEL))) == _MODEL
        assert contents.store.facts(sha256(_MODEL)) == facts_of(_MODEL)

    def test_git(self, new_works: Callable[[str], Works]) -> None:
        works = new_works("first")
        GitRepo(works.root / "webui.git").commit({"a.py": b"print()\n", "b/c.py": b"x\n"})
        layers = "w: {kind: webui, source: git+file:webui.git@main, version: 1.10.1}\n"
        images = works.images(layers, "name: one\nlayers: [w]\n")
        lock = works.lock(images)
        fresh = new_works("fresh")
        pin = lock.layers["w"].pins["webui"]
        assert pin.listing is not None
        assert sha256(fresh.contents(lock).document(pin.listing)) == pin.listing
        blobs = [Content(size=8, git_blob=git_blob(b"print()\n")), Content(size=2, git_blob=git_blob(b"x\n"))]
        fresh.contents(lock).ensure_tree(pin.listing, blobs)
        assert [b"".join(fresh.store.open(blob)) for blob in blobs] == [b"print()\n", b"x\n"]
        fresh.builder(images, lock).run(images)

    def test_what_the_lock_does_not_know(self, works: Works) -> None:
        works.root.mkdir()
        contents = works.contents(Lock())
        with pytest.raises(LockError, match="does not say where"):
            contents.ensure([_named(b"x")])
        with pytest.raises(StoreError, match="not in the store"):
            contents.document("a" * 64)
        assert contents.size(_named(b"x")) == 1 and contents.size(Content(size=None, sha256="a" * 64)) is None


class TestLongHeaders:
    """Metadata above 4 KiB is not in the lock: it is read again by range."""

    LONG = safetensors(BIG, {"ss_tag": "x" * 6000}, seed=4)

    @pytest.fixture
    def lock(self, works: Works, hub: Hub) -> Lock:
        hub.add("acme/sd", lfs={"sd.safetensors": self.LONG})
        works.environ["HF_ENDPOINT"] = hub.endpoint
        layers = "sd: {kind: model, type: checkpoint, source: hf://acme/sd@main/sd.safetensors}\n"
        layers += "w: {kind: webui, source: git+file:webui.git@main, version: 1.10.1}\n"
        GitRepo(works.root / "webui.git").commit({"a.py": b"print()\n"})
        return works.lock(works.images(layers, _RECIPE + "[sd, w]\n"))

    def test_is_fetched_again_by_range(self, new_works: Callable[[str], Works], hub: Hub, lock: Lock) -> None:
        facts = lock.files[sha256(self.LONG)]
        assert facts.metadata is None and facts.header_sha256 is not None
        fresh = new_works("fresh")
        fresh.environ["HF_ENDPOINT"] = hub.endpoint
        before = hub.sent.total()
        header = fresh.contents(lock).document(facts.header_sha256)
        assert header == self.LONG[8 : 8 + len(header)] and sha256(header) == facts.header_sha256
        assert hub.sent.total() - before < 16_384

    @pytest.mark.parametrize("field", ["header_sha256", "header_size"])
    def test_is_held_against_the_lock(
        self, new_works: Callable[[str], Works], hub: Hub, lock: Lock, field: str
    ) -> None:
        key = sha256(self.LONG)
        wrong = {"header_sha256": "f" * 64, "header_size": 2**62}[field]
        facts = replace(lock.files[key], **{field: wrong})
        edited = replace(lock, files={key: facts})
        fresh = new_works("fresh")
        fresh.environ["HF_ENDPOINT"] = hub.endpoint
        with pytest.raises(ContentMismatch, match="is not the one in the lock"):
            fresh.contents(edited).document(facts.header_sha256 or "")
        assert not [p for p in (fresh.store.root / "files").rglob("*") if p.is_file()]


def test_closed_port_is_an_error_that_names_the_file(works: Works, web: Web) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.bin"
        files = f"f: {{kind: files, files: {{/opt/x: {{source: '{url}', sha256: {sha256(b'x')}, size: 1}}}}}}\n"
        lock = works.lock(works.images(files, "name: one\nlayers: [f]\n"))
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            works.contents(lock).ensure([_named(b"x")])
    assert list((works.store.root / "tmp").iterdir()) == []

"""What moves, and that a tag never points at something that is not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import sha256
from execute.conftest import Works, no_base
from fixtures.project import BIG, safetensors
from layerbuild.destinations.base import Room
from layerbuild.destinations.layout import LayoutDestination
from layerbuild.errors import BlobUnknown, DestinationError, LoginRequired
from layerbuild.execute.build import Built, BuiltImage
from layerbuild.execute.preflight import Foresight, Preflight
from layerbuild.execute.push import Pusher
from layerbuild.execute.report import Report
from layerbuild.execute.survey import manifests_of
from layerbuild.image import INDEX
from layerbuild.model import Readable
from layerbuild.plan import Plan, PlannedLayer, Want, transfers
from layerbuild.progress import Silent


@dataclass
class Recorder:
    """A registry in memory, that refuses what it is told to."""

    name: str = "host/team"
    host: str | None = "host"
    ordered: bool = False
    blobs: dict[str, set[str]] = field(default_factory=dict)
    manifests: list[tuple[str, str | None]] = field(default_factory=list)
    tagged: dict[tuple[str, str], bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    puts: list[tuple[str, str]] = field(default_factory=list)
    mounts: list[tuple[str, str, bool]] = field(default_factory=list)
    refuse: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    takes: Room = field(default_factory=Room)
    checked: list[str] = field(default_factory=list)
    mounting: bool = True
    lock: Any = field(default_factory=threading.Lock)

    def whole(self) -> AbstractContextManager[None]:
        return nullcontext()

    def room(self) -> Room:
        return self.takes

    def check_push(self, repository: str, *, soon: bool) -> None:
        with self.lock:
            self.checked.append(repository)
        if repository in self.forbidden:
            raise LoginRequired(f"{repository} is not ours")

    def full_name(self, repository: str) -> str:
        return f"team/{repository}"

    def has(self, repository: str, digest: str, size: int | None = None) -> bool:
        return digest in self.blobs.get(repository, set())

    def mount(self, repository: str, digest: str, candidates: Sequence[str]) -> bool:
        if repository in self.closed:
            return False
        names = [c.removeprefix("/team/") for c in candidates]
        with self.lock:
            there = self.mounting and any(digest in self.blobs.get(name, set()) for name in names)
            self.mounts.append((repository, digest, there))
            if there:
                self.blobs.setdefault(repository, set()).add(digest)
        return there

    def put(self, repository: str, blob: Readable, *, advance: Callable[[int], None]) -> None:
        if blob.digest in self.refuse or repository in self.closed:
            raise DestinationError(f"{blob.digest} is refused")
        data = b"".join(blob.open())
        assert (f"sha256:{sha256(data)}", len(data)) == (blob.digest, blob.size)
        with self.lock:
            self.puts.append((repository, blob.digest))
            self.blobs.setdefault(repository, set()).add(blob.digest)

    def manifest(self, repository: str, reference: str) -> bytes | None:
        with self.lock:
            self.asked.append((repository, reference))
        return self.tagged.get((repository, reference))

    def put_manifest(self, repository: str, tag: str | None, media_type: str, data: bytes) -> None:
        named = json.loads(data)
        digest = f"sha256:{sha256(data)}"
        if digest in self.refuse:
            raise DestinationError(f"{digest} is refused")
        if media_type == INDEX:
            there = {reference for name, reference in self.tagged if name == repository}
            lost = {d["digest"] for d in named["manifests"]} - there
        else:
            lost = {d["digest"] for d in [named["config"], *named["layers"]]} - self.blobs.get(repository, set())
        if lost:
            raise BlobUnknown(f"{repository}:{tag} names a blob that is not there")
        with self.lock:
            self.manifests.append((repository, tag))
            self.tagged[repository, digest] = data
            if tag is not None:
                self.tagged[repository, tag] = data


_LAYERS = "sd: {kind: files, files: {/opt/sd: file:sd.bin}}\nx: {kind: files, files: {/opt/x: {content: hi}}}\n"
_RECIPE = (
    'matrix: {n: [one, two]}\nname: \'{{ n }}\'\nlayers: [sd, \'{{ "x" if n == "one" else "" }}\']\ntags: [v1, v2]\n'
)


@dataclass
class Scene:
    works: Works
    built: tuple[BuiltImage, ...]
    pusher: Callable[[Any], Pusher]

    def push(self, destination: Any, images: Sequence[BuiltImage] | None = None, *, must_mount: bool = False) -> Report:
        pusher = replace(self.pusher(destination), must_mount=must_mount)
        return pusher.run(Built(images=tuple(images or self.built), failed={}))


@pytest.fixture
def scene(works: Works) -> Scene:
    works.write("sd.bin", safetensors(BIG, seed=9)[:100_000])
    return _scene(works, _RECIPE)


def _scene(works: Works, recipe: str) -> Scene:
    images = works.images(_LAYERS, recipe)
    builder = works.builder(images, works.lock(images))
    built = builder.run(images).all()

    def pusher(destination: Any) -> Pusher:
        return Pusher(
            destination=destination,
            packer=builder.packer,
            store=works.store,
            lock=builder.lock,
            progress=Silent(),
            open_base=no_base,
            repositories=builder.repositories,
        )

    return Scene(works=works, built=built, pusher=pusher)


def _digests(image: BuiltImage) -> set[str]:
    return {made.blob.digest for _, made in image.layers} | {image.config_descriptor.digest}


def test_shared_blob_is_sent_once_and_mounted_elsewhere(scene: Scene) -> None:
    there = Recorder()
    report = scene.push(there)
    assert {name: there.blobs[name] for name in ("one", "two")} == {i.composed.name: _digests(i) for i in scene.built}
    sent = [digest for _, digest in there.puts]
    assert len(sent) == len(set(sent)) == len(set().union(*map(_digests, scene.built)))
    assert sorted(there.manifests) == [("one", "v1"), ("one", "v2"), ("two", "v1"), ("two", "v2")]
    assert report.images[0].references == ("host/team/one:v1", "host/team/one:v2")
    assert (report.mounted, report.present) == (0, 0) and report.uploaded > 90_000


def test_second_push_moves_nothing(scene: Scene) -> None:
    there = Recorder()
    first = scene.push(there)
    there.puts.clear()
    there.mounts.clear()
    second = scene.push(there)
    assert there.puts == there.mounts == []
    assert (second.uploaded, second.mounted, second.present) == (0, 0, first.uploaded)
    assert second.images == first.images


def test_registry_that_never_mounts_gets_two_uploads(scene: Scene) -> None:
    there = Recorder(mounting=False)
    report = scene.push(there)
    shared = set.intersection(*map(_digests, scene.built))
    assert sorted(name for name, digest in there.puts if digest in shared) == ["one", "two"]
    assert report.uploaded == sum(
        sum(made.blob.size for _, made in image.layers) + len(image.config) for image in scene.built
    )


def test_where_mounts_are_required_nothing_is_sent_twice(scene: Scene) -> None:
    there = Recorder(mounting=False)
    report = scene.push(there, must_mount=True)
    assert [image.name for image in report.images] == ["one"]
    assert sorted(name for name in there.tagged if "sha256" not in name[1]) == [("one", "v1"), ("one", "v2")]
    sent = [digest for _, digest in there.puts]
    assert len(sent) == len(set(sent))
    error = report.failed["two"]
    assert "is not mounted in team/two" in error.message and "team/one" in (error.cause or "")
    mounting = Recorder()
    assert not scene.push(mounting, must_mount=True).failed
    assert {name for name, _, done in mounting.mounts if done} == {"two"}


def test_memory_of_earlier_pushes_is_a_place_to_mount_from(scene: Scene) -> None:
    there = Recorder()
    scene.push(there, scene.built[:1])
    there.puts.clear()
    report = scene.push(there, scene.built[1:])
    assert {digest for _, digest in there.puts} == {scene.built[1].config_descriptor.digest}
    assert report.mounted > 90_000


def test_memory_that_is_wrong_costs_a_request_and_no_more(scene: Scene) -> None:
    scene.push(Recorder(), scene.built[:1])
    empty = Recorder()
    scene.push(empty, scene.built[1:])
    assert empty.blobs["two"] == _digests(scene.built[1])


@pytest.mark.parametrize("which", ["layer", "config"])
def test_image_whose_blob_fails_gets_no_tag_and_the_other_does(scene: Scene, which: str) -> None:
    # The first image has a layer that the second lacks.
    own = next(m.blob.digest for _, m in scene.built[0].layers if m.blob.digest not in scene.built[1].blobs)
    there = Recorder(refuse=frozenset({scene.built[0].config_descriptor.digest if which == "config" else own}))
    report = scene.push(there)
    assert [image.name for image in report.images] == ["two"]
    assert {name: error.message for name, error in report.failed.items()}.keys() == {"one"}
    assert "is refused" in report.failed["one"].message
    assert there.manifests == [("two", "v1"), ("two", "v2")]
    # What arrived stays, and the next run continues with the rest.
    there.refuse = frozenset()
    assert not scene.push(there).failed
    assert sorted(there.manifests) == [("one", "v1"), ("one", "v2"), ("two", "v1"), ("two", "v2")]
    assert len(there.puts) == len(set(there.puts)) == len(set().union(*map(_digests, scene.built)))


def test_shared_blob_that_fails_in_one_repository_goes_to_the_next(scene: Scene) -> None:
    there = Recorder(closed=frozenset({"one"}))
    report = scene.push(there)
    assert [image.name for image in report.images] == ["two"] and list(report.failed) == ["one"]
    assert there.blobs["two"] == _digests(scene.built[1])


def test_registry_that_forgot_what_it_said(scene: Scene) -> None:
    there = Recorder()
    scene.push(there)
    # Its manifests are as they were, another tag of one is new, and a blob has gone.
    gone = scene.built[0].layers[0][1].blob.digest
    for names in there.blobs.values():
        names.discard(gone)
    del there.tagged["one", "v2"]
    there.puts.clear()
    report = scene.push(there)
    assert not report.failed and ("one", "v2") in there.tagged
    assert there.puts == [("one", gone)]


def test_damaged_blob_is_never_stored_and_is_made_anew(scene: Scene, tmp_path: Path) -> None:
    made = scene.built[0].layers[0][1]
    path = scene.works.store.blob_path(made.blob.digest)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    layout = LayoutDestination("oci:out", tmp_path / "out")
    assert not scene.push(layout).failed
    stored = (tmp_path / "out/blobs/sha256" / made.blob.digest.removeprefix("sha256:")).read_bytes()
    assert f"sha256:{sha256(stored)}" == made.blob.digest
    assert "one:v1" in (tmp_path / "out/index.json").read_text()


# --- several platforms -------------------------------------------------------------------------------

_BOTH = (
    "name: both\nplatforms: [linux/arm64, linux/amd64]\ntags: [v1, v2]\n"
    'layers: [sd, \'{{ "x" if architecture == "arm64" else "" }}\']\n'
)


@pytest.fixture
def several(works: Works) -> Scene:
    """An image for two platforms: one has a layer that the other lacks."""
    works.write("sd.bin", safetensors(BIG, seed=9)[:100_000])
    return _scene(works, _BOTH)


def _index(there: Recorder, tag: str = "v1") -> list[str]:
    return [entry["digest"] for entry in json.loads(there.tagged["both", tag])["manifests"]]


def test_manifests_go_by_digest_and_the_index_at_each_tag_last(several: Scene) -> None:
    there = Recorder()
    report = several.push(there)
    assert there.manifests == [("both", None), ("both", None), ("both", "v1"), ("both", "v2")]
    arm, amd = several.built
    assert _index(there) == [arm.digest, amd.digest]
    (image,) = report.images
    assert image.digest == f"sha256:{sha256(there.tagged['both', 'v2'])}"
    assert image.platforms == {"linux/arm64": arm.digest, "linux/amd64": amd.digest}
    assert image.references == ("host/team/both:v1", "host/team/both:v2")
    # A layer of both is one blob of one repository.
    sent = [digest for _, digest in there.puts]
    assert len(sent) == len(set(sent)) == len(_digests(arm) | _digests(amd))
    assert arm.blobs & amd.blobs and not there.mounts
    there.asked.clear()
    again = several.push(there)
    assert there.asked == [("both", "v1"), ("both", "v2")] and len(there.puts) == len(sent)
    assert (again.uploaded, again.mounted, again.present) == (0, 0, report.uploaded)


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_a_platform_that_fails_leaves_the_tag_as_it_was(several: Scene, which: str) -> None:
    arm, amd = several.built
    before = replace(several, built=_scene(several.works, _BOTH.replace("tags: [v1, v2]", "tags: [v1]")).built)
    there = Recorder()
    there.tagged["both", "v1"] = b"what was there"
    (own,) = arm.blobs - amd.blobs
    refused = {"layer": own, "config": amd.config_descriptor.digest, "manifest": amd.digest}[which]
    there.refuse = frozenset({refused})
    report = before.push(there)
    assert there.tagged["both", "v1"] == b"what was there"
    assert not report.images and list(report.failed) == ["both"]
    assert "is refused" in report.failed["both"].message
    # What arrived stays, and the next run continues with the rest.
    there.refuse = frozenset()
    assert not before.push(there).failed and _index(there) == [arm.digest, amd.digest]
    layers = [digest for _, digest in there.puts if digest in arm.blobs | amd.blobs]
    assert sorted(layers) == sorted(arm.blobs | amd.blobs)


def test_a_platform_that_could_not_be_built(several: Scene) -> None:
    there = Recorder()
    failure = DestinationError("not this one")
    built = Built(images=several.built[1:], failed={"both@linux/arm64": failure})
    report = several.pusher(there).run(built)
    assert (report.images, report.failed) == ((), {"both@linux/arm64": failure})
    assert not there.puts and not there.tagged


def test_what_an_older_index_tells(several: Scene) -> None:
    there = Recorder()
    several.push(there)
    changed = _scene(several.works, _BOTH.replace("name: both", "name: both\nconfig: {cmd: [/x]}"))
    there.asked.clear()
    there.puts.clear()
    questions: list[str] = []
    has = there.has
    there.has = lambda *a, **k: bool(questions.append(a[1])) or has(*a, **k)  # type: ignore[method-assign]
    report = changed.push(there)
    old = {image.digest for image in several.built}
    assert {reference for _, reference in there.asked} == {"v1", "v2", *old}
    # Nobody asked for a layer that the older manifests name, and only configs are new.
    assert not questions
    assert {digest for _, digest in there.puts} == {image.config_descriptor.digest for image in changed.built}
    assert _index(there, "v2") == [image.digest for image in changed.built] and not report.failed


def test_an_index_whose_manifests_have_gone(several: Scene) -> None:
    there = Recorder()
    several.push(there)
    arm, amd = several.built
    # One tag still points at it; another is new.
    del there.tagged["both", "v2"]
    del there.tagged["both", amd.digest]
    report = several.push(there)
    assert not report.failed and _index(there, "v2") == [arm.digest, amd.digest]
    assert ("both", amd.digest) in there.tagged


def test_an_image_that_becomes_an_index_and_back(several: Scene) -> None:
    one = _scene(several.works, _BOTH.replace("platforms: [linux/arm64, linux/amd64]", "platform: linux/arm64"))
    there = Recorder()
    one.push(there)
    there.puts.clear()
    several.push(there)
    assert {digest for _, digest in there.puts} == {several.built[1].config_descriptor.digest}
    assert one.built[0].digest == several.built[0].digest
    there.puts.clear()
    one.push(there)
    assert not there.puts and there.tagged["both", "v1"] == one.built[0].manifest


_want = st.builds(
    Want,
    digest=st.one_of(st.none(), st.sampled_from([f"sha256:{n}" for n in range(5)])),
    size=st.one_of(st.none(), st.integers(0, 10)),
    title=st.just("x"),
    repositories=st.sampled_from([("a",), ("a", "b"), ("b", "c")]),
)


@given(
    st.lists(_want, max_size=6),
    st.dictionaries(st.sampled_from([f"sha256:{n}" for n in range(5)]), st.frozensets(st.sampled_from("abc"))),
    st.dictionaries(st.sampled_from([f"sha256:{n}" for n in range(5)]), st.just(("/x/y",))),
)
def test_transfers(
    wants: list[Want], present: dict[str, frozenset[str]], elsewhere: dict[str, tuple[str, ...]]
) -> None:
    found = transfers(wants, present, elsewhere)
    assert sorted(map(repr, wants)) == sorted(repr(t.want) for t in found)
    for transfer in found:
        there = present.get(transfer.want.digest or "", frozenset())
        assert set(transfer.missing) == set(transfer.want.repositories) - there
        assert (transfer.action == "present") == (not transfer.missing)
        if transfer.action == "mount":
            assert transfer.candidates
    uploads = [t.want.size or 0 for t in found if t.action == "upload"]
    assert [t.action == "upload" for t in found] == sorted((t.action == "upload" for t in found), reverse=True)
    assert uploads == sorted(uploads, reverse=True)


def test_plan_sums() -> None:
    layer = PlannedLayer(
        title="t", key="k", digest="sha256:1", size=5, images=("a",), known=True, fetch=1, pack=2, action="upload"
    )
    unknown = replace(layer, digest=None, size=None, fetch=None, pack=None)
    plan = Plan(images=("a",), destination="host", layers=(layer, unknown, replace(layer, action="mount", size=7)))
    assert (plan.sum("fetch"), plan.sum("pack"), plan.moved("upload"), plan.moved("mount")) == (2, 4, 5, 7)
    assert plan.as_json()["totals"]["upload_bytes"] == 5 and plan.as_json()["layers"][1]["size"] is None
    bare = Plan(images=(), destination=None, layers=())
    assert bare.as_json()["totals"] == {"fetch_bytes": 0, "pack_bytes": 0}


def test_what_would_fail_stops_its_images_and_no_others(scene: Scene) -> None:
    there = Recorder(forbidden=frozenset({"one"}))
    report = scene.push(there)
    assert [image.name for image in report.images] == ["two"] and "one is not ours" in report.failed["one"].message
    assert sorted(there.checked) == ["one", "two"]
    # Not even what would have been sent for the first of them.
    assert {name for name, _ in there.puts} == {"two"}
    own = {digest for digest in scene.built[0].blobs if digest not in scene.built[1].blobs}
    assert own and not own & {digest for _, digest in there.puts}


def test_layers_that_are_too_large_are_known_before_anything_is_sent(scene: Scene) -> None:
    there = Recorder(host="ghcr.io", takes=Room(largest=90_000), forbidden=frozenset({"two"}))
    report = scene.push(there)
    assert not report.images and not there.puts
    first, second = report.failed["one"], report.failed["two"]
    assert "takes no layer as large as" in first.message and "limit there is 90000" in (first.cause or "")
    # Whoever has several faults is told of all of them.
    assert first.message in second.message and "two is not ours" in second.message
    # What is there already is not too large any more.
    there = Recorder(host="ghcr.io")
    scene.push(there)
    there.takes, there.checked = Room(largest=90_000), []
    assert not scene.push(there).failed and not there.checked


def test_a_place_without_room_gets_nothing(scene: Scene) -> None:
    there = Recorder(host=None, takes=Room(free=90_000))
    report = scene.push(there)
    assert report.failed.keys() == {"one", "two"} and not there.puts
    assert "has no room" in report.failed["one"].message and "90000 bytes are free" in (
        report.failed["one"].cause or ""
    )
    needed = sum({made.blob.digest: made.blob.size for image in scene.built for _, made in image.layers}.values())
    assert not scene.push(Recorder(host=None, takes=Room(free=needed))).failed


def test_a_repository_is_checked_once_however_many_images_it_has(works: Works) -> None:
    layers = "sd: {kind: files, files: {/opt/sd: {content: hi}}}\n"
    recipe = f"matrix: {{n: {list(range(20))}}}\nname: 'i{{{{ n }}}}'\nrepository: shared\nlayers: [sd]\n"
    images = works.images(layers, recipe + "tags: ['{{ n }}']\nconfig: {labels: {n: '{{ n }}'}}\n")
    builder, there = works.builder(images, works.lock(images)), Recorder()
    builder.refused_for = Foresight(
        builder=builder,
        preflight=Preflight(destination=there, repositories=builder.repositories),
        note=pytest.fail,
    )
    built = builder.run(images)
    assert there.checked == ["shared"]
    pusher = Pusher(
        destination=there,
        packer=builder.packer,
        store=works.store,
        lock=builder.lock,
        progress=Silent(),
        open_base=no_base,
        repositories=builder.repositories,
    )
    assert len(pusher.run(built).images) == 20
    assert there.checked == ["shared", "shared"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"manifests":{"a":1}}',
        b'{"manifests":[1]}',
        b'{"manifests":[{"digest":"../v2"}]}',
        b'{"manifests":[{"digest":7}]}',
    ],
    ids=lambda data: data[:30],
)
def test_what_is_no_index_names_nothing(data: bytes) -> None:
    assert manifests_of(data) == ()


def test_of_an_index_without_end_a_few_are_looked_at() -> None:
    digests = [f"sha256:{number:064x}" for number in range(1000)]
    found = manifests_of(json.dumps({"manifests": [{"digest": digest} for digest in digests]}).encode())
    assert found == tuple(digests[:32])

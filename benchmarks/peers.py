"""The tools that a user would pick instead, each at its best, on the same bytes and the same registry.

A peer yields steps; what happens between two of them is not measured. `build` makes the first image, `first` sends
it to an empty registry; `same` and `other` make and send a second image with the same model, into the same
repository and into another one. Who starts from something ready has no `build`.
"""

from __future__ import annotations

import http.client
import os
import sys
import tarfile
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Protocol

import harness
import layouts
from layouts import Layer

IMAGES = {"one": "first", "two": "first", "three": "third"}
"""Tag -> repository."""

LATER = {"same": "two", "other": "three"}
"""Step -> tag of the second image."""

_ORAS = Path(__file__).resolve().with_name("oraspush.py")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Commands whose costs belong together, and what should be in the page cache before."""

    title: str
    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str]
    inputs: Sequence[Path] = ()


Steps = Generator[Step, None, None]


class Peer(Protocol):
    """A way of getting images into a registry."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def ours(self) -> bool:
        """Whether there is no result without it: its failure is not reported, it ends the benchmark."""

    def missing(self) -> str | None:
        """Why it cannot be tried here."""

    def steps(self, host: str, room: Path) -> Steps:
        """What to measure, in an empty directory and with an empty registry."""


class Work:
    """The same bytes for everybody: the model, a ready tar of it, and a small file for each image."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        self.model = model
        self.tar = root / "model.tar"
        write_tar(self.tar, model, "opt/weights/model")
        for tag in IMAGES:
            self.note(tag).write_text(f"image {tag}\n")
            write_tar(self.note_tar(tag), self.note(tag), "note.txt")

    def note(self, tag: str) -> Path:
        """By what the images differ."""
        return self.root / f"{tag}.txt"

    def note_tar(self, tag: str) -> Path:
        """The same as a layer."""
        return self.root / f"{tag}.tar"

    @cached_property
    def layer(self) -> Layer:
        """The ready tar."""
        return Layer.plain(self.tar)


def write_tar(tar: Path, file: Path, name: str) -> None:
    """A tar of one file."""
    with tarfile.open(tar, "w") as archive:
        archive.add(file, name)


@dataclass(frozen=True)
class _Tool:
    """What peers that are programs have in common."""

    work: Work
    name: ClassVar[str]
    ours: ClassVar[bool] = False
    program: ClassVar[str]
    keeps_containers: ClassVar[bool] = False

    def missing(self) -> str | None:
        """See `Peer`."""
        if harness.version(self.program) is None:
            return f"{self.program} is not installed"
        return "it needs root" if self.keeps_containers and os.geteuid() != 0 else None

    @abstractmethod
    def steps(self, host: str, room: Path) -> Steps:
        """See `Peer`."""


class Curl(_Tool):
    """The floor: the bytes alone, of a tar that is ready and whose digest is known."""

    name = "curl -T"
    program = "curl"

    def steps(self, host: str, room: Path) -> Steps:
        """One upload. There are no images."""
        url = f"{session(host, 'first')}digest=sha256:{self.work.layer.digest}"
        send = ["curl", "--silent", "--show-error", "--fail", "-T", str(self.work.tar), "-H", "Expect:", url]
        yield Step(title="first", commands=[send], environment=own_home(room), inputs=[self.work.tar])


class Skopeo(_Tool):
    """Copies from a layout that is ready and uncompressed."""

    name = "skopeo copy"
    program = "skopeo"

    def steps(self, host: str, room: Path) -> Steps:
        """A copy of each image."""
        layout = room / "layout"
        for tag in IMAGES:
            layouts.write(layout, tag, [self.work.layer, Layer.plain(self.work.note_tar(tag))])
        for title, tag in {"first": "one", **LATER}.items():
            # Without --preserve-digests it would compress the weights first.
            copy = skopeo(room, f"oci:{layout}:{tag}", host, tag, "--preserve-digests")
            yield Step(title=title, commands=[copy], environment=own_home(room), inputs=[self.work.tar])


class Umoci(_Tool):
    """umoci makes a layout, which compresses with gzip; skopeo copies from there."""

    name = "umoci + skopeo"
    program = "umoci"

    def steps(self, host: str, room: Path) -> Steps:
        """The model's layer is made once; a second image starts from it."""
        layout = room / "layout"
        start = [["umoci", "init", "--layout", str(layout)], ["umoci", "new", "--image", f"{layout}:model"]]
        start.append(["umoci", "insert", "--image", f"{layout}:model", str(self.work.model), "/opt/weights/model"])
        environment = own_home(room)
        inputs = [self.work.model]
        yield Step(
            title="build", commands=[*start, *self._image(layout, "one")], environment=environment, inputs=inputs
        )
        yield Step(title="first", commands=[self._copy(room, layout, host, "one")], environment=environment)
        for title, tag in LATER.items():
            commands = [*self._image(layout, tag), self._copy(room, layout, host, tag)]
            yield Step(title=title, commands=commands, environment=environment)

    def _image(self, layout: Path, tag: str) -> list[list[str]]:
        note = ["umoci", "insert", "--image", f"{layout}:model", "--tag", tag, str(self.work.note(tag)), "/note.txt"]
        return [note]

    @staticmethod
    def _copy(room: Path, layout: Path, host: str, tag: str) -> list[str]:
        return skopeo(room, f"oci:{layout}:{tag}", host, tag)


class Buildah(_Tool):
    """A Dockerfile of two COPY lines, layers kept."""

    name = "buildah"
    program = "buildah"
    keeps_containers = True

    def steps(self, host: str, room: Path) -> Steps:
        """bud and push."""
        context = room / "context"
        context.mkdir()
        (context / "model").hardlink_to(self.work.model)
        for tag in IMAGES:
            (context / f"{tag}.txt").write_bytes(self.work.note(tag).read_bytes())
            lines = f"FROM scratch\nCOPY model /opt/weights/model\nCOPY {tag}.txt /note.txt\n"
            (context / f"Dockerfile.{tag}").write_text(lines)
        environment = own_home(room)
        inputs = [self.work.model]
        yield Step(title="build", commands=[self._bud(room, "one")], environment=environment, inputs=inputs)
        yield Step(title="first", commands=[self._push(room, host, "one")], environment=environment)
        for title, tag in LATER.items():
            commands = [self._bud(room, tag), self._push(room, host, tag)]
            yield Step(title=title, commands=commands, environment=environment, inputs=inputs)

    @staticmethod
    def _buildah(room: Path) -> list[str]:
        where = ["--root", str(room / "root"), "--runroot", str(room / "run"), "--storage-driver", "overlay"]
        return [*private(room), "buildah", *where]

    def _bud(self, room: Path, tag: str) -> list[str]:
        context = room / "context"
        file = str(context / f"Dockerfile.{tag}")
        return [
            *self._buildah(room),
            "bud",
            "--isolation",
            "chroot",
            "--layers",
            "--tag",
            tag,
            "-f",
            file,
            str(context),
        ]

    def _push(self, room: Path, host: str, tag: str) -> list[str]:
        return [*self._buildah(room), "push", "--tls-verify=false", tag, f"docker://{host}/{IMAGES[tag]}:{tag}"]


class Oras:
    """The PyPI library's own push() of a tar that is ready. It makes an artifact, not an image."""

    name = "oras"
    ours = False

    def __init__(self, work: Work) -> None:
        self._work = work

    def missing(self) -> str | None:
        """See `Peer`."""
        try:
            metadata.version("oras")
        except metadata.PackageNotFoundError:
            return "oras is not installed"
        return None

    def steps(self, host: str, room: Path) -> Steps:
        """A push of each image's layers."""
        for title, tag in {"first": "one", **LATER}.items():
            files = [str(self._work.tar), str(self._work.note_tar(tag))]
            push = [sys.executable, str(_ORAS), f"{host}/{IMAGES[tag]}:{tag}", *files]
            yield Step(title=title, commands=[push], environment=own_home(room), inputs=[self._work.tar])


# --- what several need ------------------------------------------------------------------------------


def session(host: str, repository: str) -> str:
    """Where to PUT a blob: the address of a new upload session (OCI distribution-spec 1.1), open for a digest."""
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("POST", f"/v2/{repository}/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    location = answer.getheader("Location")
    if answer.status != http.HTTPStatus.ACCEPTED or location is None:
        raise harness.Failed("an upload", f"was answered with {answer.status}")
    return location + ("&" if "?" in location else "?")


def skopeo(room: Path, source: str, host: str, tag: str, *options: str) -> list[str]:
    """A copy to the registry."""
    target = f"docker://{host}/{IMAGES[tag]}:{tag}"
    return [
        *private(room),
        *("skopeo", "--insecure-policy", "--tmpdir", str(room)),
        *("copy", "--dest-tls-verify=false", *options, source, target),
    ]


def private(room: Path) -> list[str]:
    """A prefix for commands that, as root, keep a cache in /var/lib/containers: they get an empty one of their own."""
    if os.geteuid() != 0:
        return []
    directory = room / "containers"
    directory.mkdir(exist_ok=True)
    script = 'mkdir -p /var/lib/containers && mount --bind "$0" /var/lib/containers && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(directory)]


def own_home(room: Path) -> dict[str, str]:
    """An environment in which containers' tools keep temporary files and caches in `room`."""
    return {**os.environ, "TMPDIR": str(room), "XDG_DATA_HOME": str(room / "share")}

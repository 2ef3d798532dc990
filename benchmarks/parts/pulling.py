"""Pulling and unpacking the same weights as an uncompressed, a zstd and a gzip layer."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import zstandard

import harness
import layouts
import weights
from layouts import Layer
from parts.bench import Bench, in_turn, run_step
from peers import Peer, Step, Steps, own_home, private, write_tar
from results import Case, Part, Run

ENCODINGS = {"uncompressed": "", "zstd": "zst", "gzip": "gz"}
"""How a layer is packed -> suffix of its file."""

_ZSTD, _GZIP = 3, 6
"""Levels, as tools take them when they are not told."""


def run(bench: Bench) -> dict[str, Part]:
    """All three images in one registry; each pull into an empty storage."""
    with bench.room("pull") as root:
        bench.say("writing and packing the layers")
        layers = pack(root, bench.size // 4)
        peers: list[Peer] = [Pull(encoding) for encoding in layers]

        with harness.registry(root) as host:

            def once(peer: Peer) -> dict[str, Run]:
                with bench.room("room") as room:
                    return {step.title: run_step(step, room) for step in peer.steps(host, room)}

            if peers[0].missing() is None:
                upload(root, layers, host)
            found = in_turn(bench, peers, once)
        sizes = {encoding: layer.path.stat().st_size for encoding, layer in layers.items()}
    return {
        "pull": {name: Case(steps=c.steps, missing=c.missing, facts={"size": sizes[name]}) for name, c in found.items()}
    }


def pack(root: Path, size: int) -> dict[str, Layer]:
    """The same tar three times."""
    model, tar = root / "model.safetensors", root / "model.tar"
    weights.model(model, size)
    write_tar(tar, model, "opt/weights/model")
    plain = Layer.plain(tar)
    packed = {name: root / f"model.tar.{suffix}" for name, suffix in ENCODINGS.items() if suffix}
    with tar.open("rb") as source, packed["zstd"].open("wb") as sink:
        zstandard.ZstdCompressor(level=_ZSTD, threads=-1).copy_stream(source, sink)
    with tar.open("rb") as source, gzip.open(packed["gzip"], "wb", compresslevel=_GZIP) as zipped:
        shutil.copyfileobj(source, zipped, 1024 * 1024)
    return {"uncompressed": plain, **{n: Layer.packed(path, n, plain.diff_id) for n, path in packed.items()}}


def upload(root: Path, layers: dict[str, Layer], host: str) -> None:
    """An image of each layer."""
    layout = root / "layout"
    for name, layer in layers.items():
        layouts.write(layout, name, [layer])
        target = f"docker://{host}/{name}:bench"
        copy = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false"]
        harness.measure([*private(root), *copy, f"oci:{layout}:{name}", target], environment=own_home(root), cwd=root)


class Pull:
    """`podman pull`: fetched, checked, decompressed and unpacked."""

    ours = False

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        """See `peers.Peer`."""
        if absent := [program for program in ("podman", "skopeo") if harness.version(program) is None]:
            return f"{' and '.join(absent)} not installed"
        return None if os.geteuid() == 0 else "it needs root"

    def steps(self, host: str, room: Path) -> Steps:
        """One pull."""
        where = ["--root", str(room / "root"), "--runroot", str(room / "run"), "--storage-driver", "overlay"]
        pull = ["podman", *where, "pull", "--quiet", "--tls-verify=false", f"{host}/{self.name}:bench"]
        yield Step(title="pull", commands=[[*private(room), *pull]], environment=own_home(room))

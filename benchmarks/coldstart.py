"""What a start has to do in an image made the old way, and in one made by layerbuild: before and after.

    python benchmarks/coldstart.py                        2 GiB, three rounds
    python benchmarks/coldstart.py --size 256 --rounds 1

Both images hold the same models on the same base. One is built from a Dockerfile that copies files to their
places; the other is locked and pushed by layerbuild. In each round each is started in a container without a
network, in turn, and `probe.py` does there what the webui does until its first image. docs/coldstart.md says
what is measured and what is not. Needs root, podman, runc, umoci, skopeo, and `make peers`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import weights

MIB = 1024 * 1024
ROOT = "/stable-diffusion-webui"
RELEASES = ("1.10.1", "1.6.1")
SLOW_DISK = 150e6
"""Bytes per second of a disk as clouds attach it, for the calculated lines."""

CLIP = "models--openai--clip-vit-large-patch14"
COMMIT = "32bd64288804d66eefd0ccbe215aa642df71cc41"
CLIP_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "config.json")
_PEER = Path(__file__).resolve().parents[1] / ".peers" / "hub-new"
_PROBE = Path(__file__).resolve().with_name("probe.py")

# CLIP as a developer's cache has it: the files and the name of the commit.
DOCKERFILE = f"""\
FROM localhost/base
COPY clip /root/.cache/huggingface/hub/{CLIP}/snapshots/{COMMIT}
COPY main /root/.cache/huggingface/hub/{CLIP}/refs/main
COPY models/sd15.safetensors models/sd21.safetensors {ROOT}/models/Stable-diffusion/
COPY models/vae.safetensors {ROOT}/models/VAE/
COPY models/ink.safetensors {ROOT}/models/Lora/
COPY models/style.pt {ROOT}/embeddings/
"""
LAYERS = f"""\
sd15: {{kind: model, type: checkpoint, source: "file:models/sd15.safetensors"}}
sd21:
  kind: model
  type: checkpoint
  source: file:models/sd21.safetensors
  sidecars: {{.yaml: "file:models/sd21.yaml"}}
vae: {{kind: model, type: vae, source: "file:models/vae.safetensors"}}
ink: {{kind: model, type: lora, source: "file:models/ink.safetensors"}}
style: {{kind: model, type: embedding, source: "file:models/style.pt"}}
clip:
  kind: huggingface
  source: file:clip
  repository: openai/clip-vit-large-patch14
  revision: {COMMIT}
  absent: [added_tokens.json]
"""
RECIPE = f"""\
matrix: {{release: ["{'", "'.join(RELEASES)}"]}}
name: webui-{{{{ release }}}}
base: oci:base:base
platform: linux/ARCHITECTURE
webui: {{root: {ROOT}, provided_by: base, version: "{{{{ release }}}}"}}
layers: [clip, sd15, sd21, vae, ink, style]
pickle: allow
tags: [bench]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the checkpoint that is loaded")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not (_PEER / "huggingface_hub").is_dir():
        sys.exit("huggingface_hub is not there for the container: run make peers")
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name, podman() as run:
        project(Path(name), arguments.size * MIB)
        images = build(Path(name), run)
        rounds = [one_round(images, run, number) for number in range(arguments.rounds)]
    print(f"A checkpoint of {arguments.size} MiB is loaded; medians of {arguments.rounds} rounds, cold page cache")
    for release in RELEASES:
        print(f"\nRelease {release}\n\n{report([found[release] for found in rounds])}")


# --- the two images -------------------------------------------------------------------------------


def project(root: Path, size: int) -> None:
    """Models in the proportions of a usual image, and the declarations of both ways."""
    weights.model(root / "models/sd15.safetensors", size, 1)
    sd2(root / "models/sd21.safetensors", size // 2)
    weights.model(root / "models/vae.safetensors", size // 8, 3)
    weights.model(root / "models/ink.safetensors", size // 16, 4)
    (root / "models/style.pt").write_bytes(random.Random(5).randbytes(MIB // 16))
    (root / "models/sd21.yaml").write_text("model: {target: ldm.models.diffusion.ddpm.LatentDiffusion}\n")
    (root / "clip").mkdir()
    for name in CLIP_FILES:
        (root / "clip" / name).write_text("{}\n")
    (root / "main").write_text(COMMIT)
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / "layers").mkdir()
    (root / "layers/all.yaml").write_text(LAYERS)
    (root / "recipes").mkdir()
    (root / "recipes/webui.yaml").write_text(RECIPE.replace("ARCHITECTURE", write_base(root / "base")))


def sd2(path: Path, size: int) -> None:
    """A checkpoint that the webui takes for SD2 by a tensor's name."""
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": tensor}).encode()
    source = random.Random(2)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(0, size, MIB):
            file.write(source.randbytes(min(MIB, size)))


def write_base(layout: Path) -> str:
    """The base of both images in the OCI layout: this machine's Python, and the webui's directories.

    Gives the architecture in Go's words.
    """
    image = f"{layout}:base"
    output_of("umoci", "init", "--layout", str(layout))
    output_of("umoci", "new", "--image", image)
    tar = layout.with_suffix(".tar")
    write_python(tar)
    output_of("umoci", "raw", "add-layer", "--image", image, str(tar))
    environment = ("PATH=/usr/local/bin", "PYTHONHOME=/usr/local", "HOME=/root", "LANG=C.UTF-8")
    output_of("umoci", "config", "--image", image, *(f"--config.env={value}" for value in environment))
    architecture: str = json.loads(output_of("skopeo", "inspect", "--config", f"oci:{image}"))["architecture"]
    return architecture


def write_python(tar: Path) -> None:
    """The interpreter that runs this, its standard library, and the shared libraries of both."""
    library = Path(sysconfig.get_path("stdlib"))
    program = Path(sys.executable).resolve()
    unwanted = {"site-packages", "test", "tkinter", "idlelib", "ensurepip", "lib2to3"}

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = member.name.split("/")
        return None if unwanted & set(parts) or any(part.startswith("config-") for part in parts) else member

    listed = output_of("ldd", str(program), *map(str, library.glob("lib-dynload/*.so")))
    shared = set(re.findall(r"(/\S+) \(0x", listed))
    with tarfile.open(tar, "w", dereference=True) as archive:
        for name in ("tmp", "root", f"{ROOT[1:]}/models/Stable-diffusion", f"{ROOT[1:]}/embeddings"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        archive.add(program, "usr/local/bin/python3")
        archive.add(library, f"usr/local/lib/{library.name}", filter=wanted)
        for path in sorted(shared):
            archive.add(path, path[1:])


def build(root: Path, run: Podman) -> dict[str, dict[str, str]]:
    """Both images in podman's storage: release -> way -> image."""
    run("tag", run("pull", "--quiet", f"oci:{root / 'base'}:base"), "localhost/base")
    run("build", "--quiet", "--tag", "localhost/copied", str(root))
    environment = harness.layerbuild_environment(root / "store")
    images = {}
    for arguments in (["lock"], ["push", f"oci:{root / 'out'}"]):
        harness.measure(harness.layerbuild(*arguments), environment=environment, cwd=root)
    for release in RELEASES:
        ours = run("pull", "--quiet", f"oci:{root / 'out'}:webui-{release}:bench")
        images[release] = {"copied": "localhost/copied", "layerbuild": ours}
    # What is still to be written cannot be dropped from the page cache.
    os.sync()
    return images


# --- containers -----------------------------------------------------------------------------------


def output_of(*command: str) -> str:
    """Standard output of a command; the benchmark ends where it fails."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode().strip()


class Podman:
    """podman with a storage of its own, whose path may not be long."""

    def __init__(self, directory: Path) -> None:
        self._options = ["--root", str(directory / "root"), "--runroot", str(directory / "run"), "--runtime", "runc"]

    def __call__(self, *arguments: str) -> str:
        """Standard output of a command."""
        return output_of("podman", *self._options, *arguments)

    def probe(self, image: str, release: str) -> list[dict[str, Any]]:
        """The steps of a start in a new container of an image."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        mounts = ["--volume", f"{_PROBE}:/probe.py:ro", "--volume", f"{_PEER}:/peers:ro"]
        what = ["--root", ROOT, "--release", release, "--checkpoint", "sd15.safetensors", "--evict"]
        options = ["--rm", "--network=none", *limits, *mounts, "--env", "PYTHONPATH=/peers"]
        steps: list[dict[str, Any]] = json.loads(self("run", *options, image, "python3", "-B", "/probe.py", *what))
        return steps


@contextlib.contextmanager
def podman() -> Iterator[Podman]:
    """An empty podman, of which nothing is left."""
    directory = Path(tempfile.mkdtemp(prefix="podman-"))
    run = Podman(directory)
    try:
        yield run
    finally:
        run("rmi", "--all", "--force")
        # The overlay driver leaves its directory mounted on itself.
        for path in directory.glob("root/*"):
            if path.is_mount():
                output_of("umount", str(path))
        shutil.rmtree(directory)


Found = dict[str, list[dict[str, Any]]]
"""Way of making the image -> steps of a start."""


def one_round(images: dict[str, dict[str, str]], run: Podman, number: int) -> dict[str, Found]:
    """Every image started once; who comes first changes from round to round."""
    found: dict[str, Found] = {}
    for release, ways in images.items():
        order = sorted(ways, reverse=number % 2 == 1)
        found[release] = {way: run.probe(ways[way], release) for way in order}
    return found


# --- the tables -----------------------------------------------------------------------------------


def report(rounds: list[Found]) -> str:
    """What was counted, which is the same in each round, and then the seconds."""
    pair = [rounds[0][way] for way in WAYS]
    rows = [
        [title, *(f"{total(steps[part], key) / unit:.0f}{suffix}" for steps in pair)]
        for part, counts in ((slice(0, FIRST_IMAGE), COUNTS), (slice(FIRST_IMAGE, None), LATER))
        for title, key, suffix, unit in counts
    ]
    seconds = [
        [step["name"], *timed(*([found[way][i]["seconds"] for found in rounds] for way in WAYS))]
        for i, step in enumerate(rounds[0]["copied"])
    ]
    for title, part in (("until the first image", slice(0, FIRST_IMAGE)), ("all", slice(None))):
        sums = ([total(found[way][part], "seconds") for found in rounds] for way in WAYS)
        seconds.append([f"**{title}**", *timed(*sums)])
    counted = harness.table(["counted", "files copied", "layerbuild"], rows)
    return f"{counted}\n\n" + harness.table(["seconds", "files copied", "layerbuild", "ratio"], seconds)


def total(steps: list[dict[str, Any]], key: str) -> float:
    """The sum over steps; files by their number."""
    return sum(len(step[key]) if isinstance(step[key], list) else step[key] for step in steps)


def timed(before: list[float], after: list[float]) -> list[str]:
    """Medians of both, and of their ratio in each round; no ratio to what is over in less than 10 ms."""
    pair = [statistics.median(before), statistics.median(after)]
    ratio = statistics.median(old / new for old, new in zip(before, after, strict=True))
    return [*(f"{value:.2f}" for value in pair), f"{ratio:.1f}" if min(pair) >= 0.01 else "-"]


WAYS = ("copied", "layerbuild")
FIRST_IMAGE = 8
"""Steps until the first image; the others belong to the checkpoints that it does not use."""

COUNTS = (
    ("files hashed until the first image", "hashed", "", 1),
    ("bytes read for that", "hashed_bytes", " MiB", MIB),
    (f"the same, calculated for a disk of {SLOW_DISK / 1e6:.0f} MB/s", "hashed_bytes", " s", SLOW_DISK),
    ("headers read for metadata", "headers", "", 1),
    ("files for which the Hub is asked", "asked", "", 1),
    ("requests tried, with the client's retries", "requests", "", 1),
    ("waits between those retries, counted and not slept", "waits", " s", 1),
    ("bytes read to load the models", "loaded_bytes", " MiB", MIB),
)
LATER = (
    ("files hashed for the other checkpoint", "hashed", "", 1),
    ("bytes read for that", "hashed_bytes", " MiB", MIB),
    (f"the same, calculated for a disk of {SLOW_DISK / 1e6:.0f} MB/s", "hashed_bytes", " s", SLOW_DISK),
    ("trial runs of its UNet (SD2 without a yaml), counted and not run", "trials", "", 1),
)


if __name__ == "__main__":
    main()

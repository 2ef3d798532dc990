"""What handing layers to Dask workers costs, and how fast workers are: docs/cluster.md calculates with it.

    python benchmarks/cluster.py                          1,000 layers that are known, 4 models of 512 MiB that are not
    python benchmarks/cluster.py --layers 10000 --only handing

Two measurements, each with a scheduler and one-threaded workers on this machine. `handing`: the workers have a
receipt for every layer, so no byte of a model moves; what is left is what a layer costs by itself. `moving`: models
go from a web server through the workers (`push --no-store`) into docker-registry, with one and with two workers, and
without any. All of it shares this machine's cores, the registry's own hashing too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
import weights
from fileserver import serving
from layerbuild import load
from layerbuild.execute.build import distinct
from layerbuild.model import LARGE, Receipt
from layerbuild.store import Store

MIB = 1024 * 1024
PER_IMAGE = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--size", type=int, default=512, metavar="MiB")
    parser.add_argument("--only", choices=("handing", "moving"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
        root = Path(name)
        if arguments.only != "moving":
            print(handing(root, arguments.layers), "\n")
        if arguments.only != "handing":
            print(moving(root, arguments.models, arguments.size * MIB))


@contextlib.contextmanager
def cluster(root: Path, count: int) -> Iterator[tuple[str, list[Path]]]:
    """A scheduler with `count` workers; gives its address and the workers' stores."""
    root.mkdir()
    file, stores = root / "scheduler.json", [root / f"store-{n}" for n in range(count)]
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    own = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(root)]
    commands = [(["scheduler", "--port", "0", "--scheduler-file", str(file), *here], root / "none")]
    commands += [(["worker", "--scheduler-file", str(file), *own], store) for store in stores]
    running = []
    try:
        with (root / "log").open("wb") as log:
            for (what, *options), store in commands:
                module = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options]
                environ = harness.layerbuild_environment(store)
                running.append(subprocess.Popen(module, env=environ, stdout=log, stderr=log))
        while (root / "log").read_text().count("Register worker addr") < count:
            if any(process.poll() is not None for process in running):
                raise harness.Failed("dask", "does not start", (root / "log").read_text()[-2000:])
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], stores
    finally:
        for process in running:
            process.kill()
            process.wait()


def project(root: Path, sources: Sequence[tuple[str, str, int]]) -> Path:
    """Images of `PER_IMAGE` upscalers, whose facts nobody needs; by address, sha256 and bytes. Locked."""
    for directory in ("layers", "recipes"):
        (root / directory).mkdir(parents=True)
    layers, names = "", [f"m{number:05}" for number in range(len(sources))]
    for name, (source, sha256, size) in zip(names, sources, strict=True):
        layers += f"{name}: {{kind: model, type: upscaler, filename: {name}.pth, source: '{source}', "
        layers += f"sha256: {sha256}, size: {size}}}\n"
    (root / "layers/l.yaml").write_text(layers)
    for start in range(0, len(names), PER_IMAGE):
        part = ", ".join(names[start : start + PER_IMAGE])
        recipe = f"name: i{start:05}\nwebui: {{root: /webui}}\nlayers: [{part}]\ntags: [v1]\n"
        (root / f"recipes/i{start:05}.yaml").write_text(recipe)
    harness.measure(harness.layerbuild("lock"), environment=harness.layerbuild_environment(root / "none"), cwd=root)
    return root


def handing(root: Path, count: int) -> str:
    """`build --executor` of `count` layers that the workers know, beside `build` of layers that this machine knows."""
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    made = project(root / "handing", [(f"https://models.example/{d}.pth", d, 17 * MIB) for d in digests])
    receipts = _receipts(made)
    _remember(root / "here", receipts)
    rows = []
    alone = harness.measure(
        harness.layerbuild("build", "--frozen"), environment=harness.layerbuild_environment(root / "here"), cwd=made
    )
    with cluster(root / "handing-cluster", 2) as (address, stores):
        for store in stores:
            _remember(store, receipts)
        command = harness.layerbuild("build", "--frozen", "--executor", address)
        handed = harness.measure(command, environment=harness.layerbuild_environment(root / "fresh"), cwd=made)
    for name, run in (("receipts here", alone), ("receipts at 2 workers", handed)):
        rows.append([name, f"{run.seconds:.1f}", f"{run.cpu:.1f}", f"{run.peak / 1e6:.0f}"])
    each = (handed.seconds - alone.seconds) / count
    title = f"{count} layers, none made: {each * 1000:.1f} ms for each that is handed to a worker\n\n"
    return title + harness.table(["", "seconds", "CPU seconds here", "peak MB here"], rows)


def _receipts(directory: Path) -> list[Receipt]:
    """A receipt for every large layer of a project. What it says of them is not true."""
    workspace = load(directory).workspace
    builder = workspace.builder(workspace.lock())
    found = []
    for layer in distinct(builder.compose(workspace.images)).values():
        if layer.instance is not None and layer.algorithm == "none":
            size = builder.packer.tar(layer.instance).size
            if size >= LARGE:
                found.append(Receipt(key=layer.instance.key, diff_id=f"sha256:{layer.instance.key}", size=size))
    return found


def _remember(place: Path, receipts: Sequence[Receipt]) -> None:
    with contextlib.closing(Store(place)) as store:
        for receipt in receipts:
            store.put_receipt(receipt)


def moving(root: Path, count: int, size: int) -> str:
    """`push --no-store` of `count` models of `size` bytes, by nobody else, one worker and two."""
    with contextlib.ExitStack() as stack:
        sources = []
        for number in range(count):
            path = root / f"models/m{number}.pth"
            weights.model(path, size, seed=number)
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(MIB):
                    digest.update(chunk)
            sources.append((stack.enter_context(serving(path)), digest.hexdigest(), path.stat().st_size))
        made = project(root / "moving", sources)
        rows = [_moved(root, made, workers, count * size) for workers in (0, 1, 2)]
    title = f"{count} models of {size // MIB} MiB from a web server to an empty docker-registry\n\n"
    return title + harness.table(["", "seconds", "MB/s", "CPU seconds here", "peak MB here"], rows)


def _moved(root: Path, made: Path, workers: int, total: int) -> list[str]:
    environ = harness.layerbuild_environment(root / f"moving-{workers}")
    (root / f"at-{workers}").mkdir()
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(harness.registry(root / f"at-{workers}"))
        executor = []
        if workers:
            executor = ["--executor", stack.enter_context(cluster(root / f"cluster-{workers}", workers))[0]]
        harness.warm(list((root / "models").glob("*.pth")))
        command = harness.layerbuild("push", "--no-store", "--frozen", f"{host}/b", *executor)
        run = harness.measure(command, environment=environ, cwd=made)
    name = f"{workers} worker{'s' * (workers > 1)}" if workers else "this machine alone"
    return [name, f"{run.seconds:.1f}", f"{total / run.seconds / 1e6:.0f}", f"{run.cpu:.1f}", f"{run.peak / 1e6:.0f}"]


if __name__ == "__main__":
    main()

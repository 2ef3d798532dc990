"""Pushing 1,000 images of 40 models each, against what the registry itself can take.

    python benchmarks/scalepush.py
    python benchmarks/scalepush.py --images 100 --json scalepush.json

All images share one repository. They are pushed once; then the models are deleted and the recipe changes, so
that every image has another config and no layer is new, and they are pushed from an empty store: by then a
byte of a model cannot be read. The peer sends the same configs and manifests and nothing else, from as many
threads as layerbuild uses, with Python's http.client: what is left is the registry.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
import scale
from layerbuild.execute.mover import SMALL_AT_ONCE

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
        found = run(Path(name), arguments.images)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(report(found))


def run(root: Path, count: int) -> dict[str, Any]:
    """What pushing `count` images takes: seconds, CPU seconds, bytes of memory."""
    project = scale.prepare(root, [count])[count]
    with harness.registry(root) as host:
        rows = {"first": _push(root / "store", project, host)}
        shutil.rmtree(root / "models")
        recipe = project / "recipes" / "sd.yaml"
        recipe.write_text(recipe.read_text().replace("env: {", "env: {RELEASE: two, "))
        environment = harness.layerbuild_environment(root / "store")
        harness.measure(harness.layerbuild("lock"), environment=environment, cwd=project)
        rows["changed"] = _push(root / "empty", project, host)
        rows["unchanged"] = _push(root / "empty", project, host)
        tags = [f"own-{number:04}" for number in range(count)]
        floor = _floor(host, tags)
    return {"images": count, "threads": SMALL_AT_ONCE, "rows": rows, "floor": floor}


def _push(store: Path, project: Path, host: str) -> dict[str, float]:
    environment = harness.layerbuild_environment(store)
    done = harness.measure(harness.layerbuild("push", host), environment=environment, cwd=project)
    return {"seconds": done.seconds, "cpu": done.cpu, "peak": done.peak}


def _floor(host: str, tags: Sequence[str]) -> float:
    """Seconds in which the registry takes the images' configs and manifests again, under other tags."""
    local = threading.local()

    def connection() -> http.client.HTTPConnection:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(host, blocksize=1024 * 1024)
        made: http.client.HTTPConnection = local.connection
        return made

    def call(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection().request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection().getresponse()
        return answer, answer.read()

    def fetch(tag: str) -> tuple[str, bytes, bytes]:
        manifest = call("GET", f"/v2/sd/manifests/{tag}", Accept=_MANIFEST)[1]
        digest = json.loads(manifest)["config"]["digest"]
        return tag, call("GET", f"/v2/sd/blobs/{digest}")[1], manifest

    def send(image: tuple[str, bytes, bytes]) -> int:
        tag, config, manifest = image
        opened, _ = call("POST", "/v2/sd/blobs/uploads/")
        where = (opened.getheader("Location") or "").split(host, 1)[-1]
        digest = hashlib.sha256(config).hexdigest()
        call("PUT", f"{where}&digest=sha256:{digest}", config, Content_Type="application/octet-stream")
        return call("PUT", f"/v2/sd/manifests/again-{tag}", manifest, Content_Type=_MANIFEST)[0].status

    images = _all(fetch, tags)
    started = time.perf_counter()
    statuses = _all(send, images)
    seconds = time.perf_counter() - started
    assert set(statuses) == {201}, statuses
    return seconds


def _all(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(SMALL_AT_ONCE) as pool:
        return list(pool.map(work, items))


def report(found: dict[str, Any]) -> str:
    """A row for each push, and one for the registry alone."""
    titles = {"first": "first push", "changed": "every config changed", "unchanged": "nothing changed"}
    count = found["images"]
    rows = [
        [
            titles[name],
            f"{row['seconds']:.1f} s",
            f"{count / row['seconds']:.0f}",
            f"{row['cpu']:.1f} s",
            f"{row['peak'] / scale.MIB:.0f} MiB",
        ]
        for name, row in found["rows"].items()
    ]
    rows.append(
        [
            f"the registry alone, {found['threads']} threads",
            f"{found['floor']:.1f} s",
            f"{count / found['floor']:.0f}",
            "",
            "",
        ]
    )
    return harness.table([f"{count:,} images", "time", "images/s", "CPU", "memory"], rows)


if __name__ == "__main__":
    main()

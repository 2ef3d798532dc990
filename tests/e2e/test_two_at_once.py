"""Two runs at the same time, on one machine: no blob goes over the line twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from urllib.parse import parse_qs

import pytest

from e2e.readers import fetch
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front

_RECIPES = "".join(
    f"---\nname: {name}\nwebui: {{root: /webui}}\nlayers: [sd, small]\nconfig: {{env: {{NAME: {name}}}}}\ntags: [v1]\n"
    for name in ("one", "two")
)


@pytest.fixture
def two(project: Project, registry: Front) -> Project:
    """Two images of the same layers, and a registry that takes its time: whoever looks sees nothing there yet."""
    registry.rule("POST", "/uploads/", pause=0.1, times=1000)
    registry.rule("PUT", "/uploads/", pause=0.1, times=1000)
    one, _, other = _RECIPES.removeprefix("---\n").partition("---\n")
    project.write(
        {
            "sd.safetensors": safetensors(BIG, seed=1),
            "small.safetensors": safetensors(300_000, seed=2),
            "layers/l.yaml": "sd: {kind: model, type: checkpoint, source: 'file:sd.safetensors'}\n"
            "small: {kind: model, type: lora, source: 'file:small.safetensors'}\n",
            "recipes/one.yaml": one,
            "recipes/two.yaml": other,
        }
    ).run("lock")
    return project


def push_at_once(project: Project, registry: Front, images: Sequence[Sequence[str]]) -> None:
    codes: list[int] = []
    start = threading.Barrier(len(images))

    def push(names: Sequence[str]) -> None:
        start.wait()
        codes.append(project.run("push", f"{registry.host}/{registry.prefix}", *names).code)

    runs = [threading.Thread(target=push, args=(names,)) for names in images]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert codes == [0] * len(images)


def bodies(registry: Front) -> Counter[str]:
    """How often each blob was sent, by the digests that their uploads ended with."""
    puts = [r for r in registry.requests("PUT", "/blobs/uploads/") if r.status == 201]
    patched = {r.path for r in registry.requests("PATCH", "/blobs/uploads/") if r.received}
    return Counter(parse_qs(r.query)["digest"][0] for r in puts if r.received or r.path in patched)


@pytest.mark.parametrize("images", [((), ()), (("one",), ("two",)), ((), ("two",), ("one",))], ids=str)
@pytest.mark.parametrize("known", [False, True], ids=["one-pass", "known"])
def test_no_blob_is_sent_twice(two: Project, registry: Front, images: Sequence[Sequence[str]], known: bool) -> None:
    if known:
        two.run("build")
    push_at_once(two, registry, images)
    sent = bodies(registry)
    wanted = set[str]()
    for name in ("one", "two"):
        manifest = json.loads(fetch(f"{registry.url}/v2/{registry.prefix}/{name}/manifests/v1"))
        wanted |= {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    assert set(sent) == wanted
    assert set(sent.values()) == {1}, sent

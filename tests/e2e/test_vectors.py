"""The hash cache in finished images, against what the webui's own code stored for the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.readers import MTIME, layout_manifests, members
from fixtures.project import Project

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text(encoding="utf-8"))
_TYPES = {"Stable-diffusion": "checkpoint", "Lora": "lora"}


def _content(rule: dict[str, Any]) -> bytes:
    header = b"" if rule["header"] is None else rule["header"].encode()
    length = b"" if rule["header"] is None else len(header).to_bytes(8, "little")
    return length + header + bytes([rule["byte"]]) * rule["length"]


def test_cache_equals_what_each_release_stored(project: Project, tmp_path: Path) -> None:
    layers = {}
    for number, rule in enumerate(_VECTORS["files"]):
        _, directory, name = rule["path"].split("/", 2)
        layers[f"m{number}"] = {
            "kind": "model",
            "type": _TYPES[directory],
            "source": f"file:{rule['path']}",
            "filename": name,
        }
        project.write({rule["path"]: _content(rule)})
    versions = list(_VECTORS["stored"])
    recipe = {
        "matrix": {"version": versions},
        "name": "webui-{{ version }}",
        "webui": {"root": "/webui", "version": "{{ version }}"},
        "layers": list(layers),
        "compression": "gzip",
        "pickle": "allow",
        "tags": ["v"],
    }
    project.write({"layers/all.yaml": json.dumps(layers), "recipes/all.yaml": json.dumps(recipe)})
    project.run("lock")
    project.run("push", f"oci:{tmp_path / 'out'}")
    manifests = layout_manifests(tmp_path / "out")
    assert len(manifests) == len(versions)
    for version in versions:
        found = members(tmp_path / "out", manifests[f"webui-{version}:v"])
        # The rule is a comparison of times: the file's, links followed, must not be younger than the entry's.
        assert {member.mtime for member, _ in found.values()} == {_VECTORS["mtime"]} == {MTIME}
        stored = json.loads(found["webui/cache.json"][1])
        assert stored == _VECTORS["stored"][version], version
        for rule in _VECTORS["files"]:
            assert found[f"opt/weights/sha256/{rule['sha256']}"][1] == _content(rule)
            link = found[f"webui/{rule['path']}"][0]
            assert (link.issym(), link.linkname) == (True, f"/opt/weights/sha256/{rule['sha256']}")

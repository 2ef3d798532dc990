"""One webui layer at two places, with everything that hangs on where the webui lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.readers import layout_manifests, members, sha256
from fixtures.gitrepo import GitRepo
from fixtures.pickles import harmless
from fixtures.project import Project, safetensors

_MODEL = safetensors(2000, {"format": "pt"})
_LAYERS = """
webui:
  kind: webui
  source: git+file:webui.git@main
  version: 1.6.1
  repositories: {k-diffusion: git+file:k.git@main, BLIP: git+file:blip.git@main}
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
style: {kind: model, type: embedding, source: file:style.pt}
worker:
  kind: files
  files: {"{{ webui.data_dir }}/config.json": {content: '{"root": "{{ webui.root }}"}'}}
"""
_FIRST = """
name: first
webui: {root: /stable-diffusion-webui}
layers: [webui, sd, style, worker]
compression: gzip
tags: [v]
"""
_SECOND = """
name: second
webui: {root: /srv/a1111, data_dir: /data, models_dir: /models, embeddings_dir: /embeddings}
owner: {uid: 1000, gid: 100}
layers: [webui, sd, style, worker]
compression: gzip
tags: [v]
"""


def test_two_roots(project: Project, tmp_path: Path) -> None:
    GitRepo(project.root / "webui.git").commit(
        {"webui.sh": ("100755", b"#!/bin/sh\n"), "a/b/c.py": b"c\n", "link": ("120000", b"a/b/c.py")}
    )
    GitRepo(project.root / "k.git").commit({"k_diffusion/__init__.py": b""})
    GitRepo(project.root / "blip.git").commit({"blip.py": b"\r\n"})
    project.write({"layers/l.yaml": _LAYERS, "recipes/1.yaml": _FIRST, "recipes/2.yaml": _SECOND})
    project.write({"sd.safetensors": _MODEL, "style.pt": harmless("style")})
    project.run("lock")
    project.run("push", f"oci:{tmp_path / 'out'}")
    manifests = layout_manifests(tmp_path / "out")
    first = members(tmp_path / "out", manifests["first:v"])
    second = members(tmp_path / "out", manifests["second:v"])
    _check(first, root="stable-diffusion-webui", owner=(0, 0))
    _check(second, root="srv/a1111", data="data", models="models", embeddings="embeddings", owner=(1000, 100))
    # Neither tree has anything below the other's root.
    assert not any(path.startswith(("srv", "data", "models", "embeddings")) for path in first)
    assert not any(path.startswith("stable-diffusion-webui") for path in second)


def _check(
    found: dict[str, Any],
    *,
    root: str,
    owner: tuple[int, int],
    data: str | None = None,
    models: str | None = None,
    embeddings: str | None = None,
) -> None:
    data = data or root
    models, embeddings = models or f"{data}/models", embeddings or f"{data}/embeddings"
    files = {
        f"{root}/webui.sh": (0o755, b"#!/bin/sh\n"),
        f"{root}/a/b/c.py": (0o644, b"c\n"),
        f"{root}/repositories/k-diffusion/k_diffusion/__init__.py": (0o644, b""),
        f"{root}/repositories/BLIP/blip.py": (0o644, b"\r\n"),
        f"{data}/config.json": (0o644, json.dumps({"root": f"/{root}"}).encode()),
    }
    for path, (mode, content) in files.items():
        member, actual = found[path]
        assert (member.mode, actual, (member.uid, member.gid)) == (mode, content, owner), path
    links = {
        f"{root}/link": "a/b/c.py",
        f"{models}/Stable-diffusion/sd.safetensors": f"/opt/weights/sha256/{sha256(_MODEL)}",
        f"{embeddings}/style.pt": f"/opt/weights/sha256/{sha256(harmless('style'))}",
    }
    for path, target in links.items():
        member, _ = found[path]
        assert (member.issym(), member.linkname, (member.uid, member.gid)) == (True, target, owner), path
    cache = json.loads(found[f"{data}/cache.json"][1])
    assert set(cache["hashes"]) == {"checkpoint/sd.safetensors", "textual_inversion/style"}
    # Weights belong to nobody's image.
    weights = [member for path, (member, _) in found.items() if path.startswith("opt/weights")]
    assert {(m.uid, m.gid) for m in weights} == {(0, 0)} and len(weights) == 4
    assert "opt" not in found

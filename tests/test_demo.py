"""`layerbuild demo`: it runs anywhere, gives the same everywhere, and leaves alone what is there."""

from __future__ import annotations

import json
from pathlib import Path

from e2e.readers import call, layout_manifests
from fixtures.project import Project


def _digests(layout: Path) -> dict[str, str]:
    index = json.loads((layout / "index.json").read_text())
    return {e["annotations"]["org.opencontainers.image.ref.name"]: e["digest"] for e in index["manifests"]}


def test_two_demos_give_the_same_images(project: Project) -> None:
    # CI is set, GIT_DIR points elsewhere, and the user's own store stays as it is.
    first = project.run("demo", "one", env={"CI": "true", "GIT_DIR": "/nonexistent"})
    again = project.run(
        "--quiet", "demo", str(project.root / "two"), env={"TZ": "Asia/Tokyo", "LC_ALL": "C"}, umask=0o77
    )
    one, two = project.root / "one", project.root / "two"
    assert _digests(one / "images") == _digests(two / "images")
    assert set(_digests(one / "images")) == {"gallery:demo", "photo-only:demo"}
    assert (one / "lockfile.yaml").read_bytes() == (two / "lockfile.yaml").read_bytes()
    assert not project.store.exists()
    assert "What was shared" in first.out and "What was shared" in again.out
    assert "Traceback" not in first.err
    layers = [{x["digest"]: x["size"] for x in m["layers"]} for m in layout_manifests(one / "images").values()]
    shared = set(layers[0]) & set(layers[1])
    assert max(layers[0][digest] for digest in shared) > 40_000_000
    call("skopeo", "inspect", f"oci:{one / 'images'}:gallery:demo")


def test_directory_that_is_not_empty_is_left_alone(project: Project, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        project.run("demo", str(tmp_path / name), check=False).failed(2, "exists and is not empty", "another directory")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    project.run("demo", "/proc/nowhere", check=False).failed(1, "the demo cannot be written")

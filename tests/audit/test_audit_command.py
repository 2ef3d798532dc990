"""`layerbuild audit` as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from audit.planting import ROOT, Image, empty, model
from fixtures.project import Project
from fixtures.registry import Front
from layerbuild.registry.manifests import INDEX_TYPE


def test_a_clean_image(made: tuple[Project, Image]) -> None:
    project, _ = made
    result = project.run("audit", "oci:out:sound:made")
    assert "A1111 1.10.1 in /srv/webui, 6 models" in result.out and "Clean: nothing worse" in result.out
    assert "try: " in result.out
    (image,) = project.run("audit", "oci:out:sound:made", "--json").json["images"]
    assert image["clean"] and image["platform"] == "linux/amd64" and image["models"] == 6
    assert image["total"]["start"] == {"seconds": 0.0, "bytes_hashed": 0, "bytes_downloaded": 0}
    assert 0 < image["bytes_read"] < 100_000


def test_an_image_of_the_project_before_it_is_built(made: tuple[Project, Image], sound: Image) -> None:
    project, _ = made
    (described,) = project.run("audit", "sound", "--json").json["images"]
    (built,) = project.run("audit", "oci:out:sound:made", "--json").json["images"]
    for image in (described, built):
        del image["reference"], image["bytes_read"]
    assert described == built
    project.run("audit", "soun", check=False).failed(2, "no image is called 'soun'", "sound")


def test_an_image_of_a_project_on_a_base(made: tuple[Project, Image], tmp_path: Path) -> None:
    _, image = made
    project = Project(tmp_path / "project", tmp_path / "store")
    base = image.plant({"root/.netrc": "machine x"}).save("base")
    project.write(
        {
            "layers/a.yaml": "b: {kind: model, type: checkpoint, source: file:b.safetensors}\n",
            "recipes/on-base.yaml": f"base: {base}\nlayers: [b]\n"
            f"webui: {{root: /{ROOT}, provided_by: base, version: 1.10.1}}\n",
            "b.safetensors": model(seed=8),
        }
    )
    project.run("lock")
    (found,) = project.run("audit", "on-base", "--json", check=False).json["images"]
    # the image's own hash cache replaces the base's
    ids = {f["id"] for f in found["findings"]}
    assert {"secret-file", "model-not-hashed"} <= ids and found["models"] == 7
    unhashed = {path for f in found["findings"] if f["id"] == "model-not-hashed" for path in f["paths"]}
    assert f"/{ROOT}/models/Stable-diffusion/b.safetensors" not in unhashed


def test_findings_are_told_worst_first(made: tuple[Project, Image], sound: Image) -> None:
    project, _ = made
    planted = sound.plant({f"{ROOT}/cache.json": "{", "root/.netrc": "x"}).configured(
        env={"HF_HUB_OFFLINE": None, "X": "hf_" + "a" * 30}
    )
    planted.save("bad")
    result = project.run("audit", "oci:out:sound:bad", check=False)
    assert result.code == 4 and result.err == ""
    words = [
        line.split()[0] for line in result.out.splitlines() if line.split()[:1] in (["error"], ["warning"], ["info"])
    ]
    assert words == sorted(words, key=["error", "warning", "info"].index) and len(set(words)) == 3
    assert "Estimated: about" in result.out.splitlines()[-1] and "hf_aaa" not in result.out
    assert "model-not-hashed (5)" in result.out
    report = project.run("audit", "oci:out:sound:bad", "--json", check=False)
    assert report.code == 4
    (image,) = report.json["images"]
    assert not image["clean"] and "hf_aaa" not in report.out
    assert all(f["hint"] and f["what"] for f in image["findings"])


def test_every_platform_of_an_index(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", tmp_path / "store")
    layout = project.root / "out"
    entries = []
    for architecture, secret in (("amd64", ""), ("arm64", "x")):
        image = empty(layout, architecture=architecture).plant({"srv/webui/webui.py": "", "root/.netrc": secret})
        image.save(architecture)
        index = json.loads((layout / "index.json").read_text())
        entry = next(
            e
            for e in index["manifests"]
            if e["annotations"]["org.opencontainers.image.ref.name"].endswith(architecture)
        )
        del entry["annotations"]
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    document = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).encode()
    empty(layout)._destination.put_manifest("both", "1", INDEX_TYPE, document)
    images = project.run("audit", "oci:out:both:1", "--json", check=False).json["images"]
    told = {i["platform"]: "secret-file" in {f["id"] for f in i["findings"]} for i in images}
    assert list(told.items()) == [("linux/amd64", False), ("linux/arm64", True)]
    (one,) = project.run("audit", "oci:out:both:1", "--json", "--platform", "linux/amd64", check=False).json["images"]
    assert one["platform"] == "linux/amd64"
    project.run("audit", "oci:out:both:1", "--platform", "linux/s390x", check=False).failed(2, "linux/amd64")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("oci:nowhere:x:1", ["no OCI image layout"]),
        ("oci:out:other:1", ["no single image"]),
        ("localhost:1/x y", ["localhost"]),
        ("sound:made", ["no image is called"]),
    ],
)
def test_what_cannot_be_read(made: tuple[Project, Image], reference: str, words: list[str]) -> None:
    made[0].run("audit", reference, check=False).failed(2, *words)


def test_what_a_registry_lacks(made: tuple[Project, Image], registry: Front) -> None:
    made[0].run("audit", f"{registry.host}/{registry.prefix}/none:1", check=False).failed(2, "none:1 does not exist")


def test_damage_is_no_traceback(made: tuple[Project, Image], sound: Image) -> None:
    sound.plant(b"\x01" * 4096).save("damaged")
    made[0].run("audit", "oci:out:sound:damaged", check=False).failed(2, "damaged")
    sound.save("odd", config=b"[1]")
    made[0].run("audit", "oci:out:sound:odd", "--json", check=False).failed(2, "makes no sense")


def test_no_project_is_needed(made: tuple[Project, Image], tmp_path: Path) -> None:
    _, image = made
    elsewhere = Project(tmp_path / "none", tmp_path / "store")
    (elsewhere.root / "recipes").rmdir()
    assert "Clean" in elsewhere.run("audit", f"oci:{image.layout}:sound:made").out
    elsewhere.run("audit", "sound", check=False).failed(2, "no project here")


def test_the_demo_is_clean(tmp_path: Path) -> None:
    project = Project(tmp_path / "demo-parent", tmp_path / "store")
    project.run("-q", "demo", "demo")
    for name in ("gallery", "photo-only"):
        (image,) = project.run("audit", f"oci:demo/images:{name}:demo", "--json").json["images"]
        assert image["clean"] and image["total"]["start"]["seconds"] == 0


def test_every_finding_is_documented() -> None:
    root = Path(__file__).parents[2]
    sources = [path.read_text() for path in (root / "builder/layerbuild/audit/checks").glob("*.py")]
    ids = {name for text in sources for name in re.findall(r'(?:\bid=|: \()"([a-z0-9]+(?:-[a-z0-9]+)+)"', text)}
    documented = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", (root / "docs/audit.md").read_text()))
    assert len(ids) > 35 and ids <= documented

"""Config and manifest: what a base adds, what a recipe adds, and the same bytes for the same inputs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builders import images_of, sha256
from fixtures.registry import MemoryBlob
from layerbuild.compress import MEDIA_TYPES
from layerbuild.destinations.layout import LayoutDestination
from layerbuild.errors import LayerbuildError
from layerbuild.image import (
    CONFIG,
    CREATED,
    INDEX,
    MANIFEST,
    BaseImage,
    BuiltLayer,
    config_json,
    index_json,
    manifest_json,
)
from layerbuild.model import Blob, Descriptor
from layerbuild.schema import ImageConfig, Recipe

_DIGEST = f"sha256:{'1' * 64}"
_TAR = f"sha256:{'2' * 64}"
_DESCRIPTOR = Descriptor(media_type=CONFIG, digest=_DIGEST, size=2)


def _layer(letter: str = "a", algorithm: str = "zstd") -> BuiltLayer:
    digest = f"sha256:{letter * 64}"
    diff_id = digest if algorithm == "none" else f"sha256:{letter * 63}0"
    blob = Blob(encoding=algorithm, digest=digest, size=5)
    return BuiltLayer(key=letter * 64, title=f"files {letter}", diff_id=diff_id, size=9, algorithm=algorithm, blob=blob)


def _base(config: dict[str, Any] | None = None, media_type: str = MEDIA_TYPES["gzip"], **more: Any) -> BaseImage:
    manifest = {"layers": [{"mediaType": media_type, "digest": _TAR, "size": 3}]}
    document = {"config": config, "rootfs": {"type": "layers", "diff_ids": [_DIGEST]}, **more}
    return BaseImage(reference="docker.io/acme/base:1", digest=_DIGEST, manifest=manifest, config=document)


def _config(recipe: Recipe, base: BaseImage | None = None, env: dict[str, str] | None = None) -> Any:
    return json.loads(config_json(recipe, env or {}, base, [_layer()]))


def _runtime(config: dict[str, Any], base: dict[str, Any]) -> Any:
    return _config(Recipe(config=ImageConfig(**config)), _base(base))["config"]


def test_bytes_are_frozen() -> None:
    config = ImageConfig(cmd=["/start", "é"], env={"B": "1", "A": True}, labels={"x": "y"})
    recipe = Recipe(config=config, annotations={"b": "1", "a": "2"})
    data = config_json(recipe, {"HF_HOME": "/opt/huggingface"}, None, [_layer("a"), _layer("b", "none")])
    assert sha256(data) == "5cfd163b7052bf156ea8e82dc00f40879df44780eb8728b47d3592c0d831f85d"
    manifest = manifest_json(recipe, None, [_layer("a"), _layer("b", "none")], _DESCRIPTOR)
    assert sha256(manifest) == "a7b2ca25ba0bc500bc59c1a04f9d7e54f4abec778aad473a7f20388a9c537ef6"


def test_an_index_is_frozen() -> None:
    manifests = [("linux/arm64/v8", _DESCRIPTOR), ("linux/amd64", _DESCRIPTOR)]
    described = '{"mediaType":"%s","digest":"%s","size":2,"platform":' % (CONFIG, _DIGEST)  # noqa: UP031  # braces
    expected = (
        f'{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":['
        f'{described}{{"architecture":"arm64","os":"linux","variant":"v8"}}}},'
        f'{described}{{"architecture":"amd64","os":"linux"}}}}]'
    )
    assert index_json({}, manifests).decode() == expected + "}"
    assert index_json({"b": "é", "a": "2"}, manifests).decode() == expected + ',"annotations":{"a":"2","b":"é"}}'


def test_environment_keeps_the_bases_order_and_the_recipe_wins() -> None:
    recipe = Recipe(config=ImageConfig(env={"PATH": "/mine", "NEW": 1, "ON": True, "HF_HOME": "/elsewhere"}))
    base = _base({"Env": ["PATH=/usr/bin", "LANG=C", "EMPTY=", "EQUALS=a=b"]})
    found = _config(recipe, base, {"LANG": "C.UTF-8", "HF_HOME": "/opt/huggingface", "OFFLINE": "1"})["config"]["Env"]
    expected = ["PATH=/mine", "LANG=C.UTF-8", "EMPTY=", "EQUALS=a=b", "HF_HOME=/elsewhere", "OFFLINE=1"]
    assert found == [*expected, "NEW=1", "ON=true"]


def test_entrypoint_takes_the_bases_arguments_away() -> None:
    base = {"Entrypoint": ["/old"], "Cmd": ["--old"]}
    assert _runtime({"entrypoint": ["/new"]}, base) == {"Entrypoint": ["/new"]}
    assert _runtime({"entrypoint": ["/new"], "cmd": ["x"]}, base) == {"Entrypoint": ["/new"], "Cmd": ["x"]}
    assert _runtime({"cmd": ["x"]}, base) == {"Entrypoint": ["/old"], "Cmd": ["x"]}
    assert _runtime({}, base) == base


def test_sets_and_labels_are_added_to() -> None:
    base = {"Volumes": {"/a": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"x": "1", "y": "2"}, "Healthcheck": {}}
    config = {"volumes": ["/b"], "ports": ["3000/tcp"], "labels": {"y": "3"}, "user": "1000", "workdir": "/w"}
    found = _runtime({**config, "stop_signal": "SIGINT"}, base)
    assert found["Volumes"] == {"/a": {}, "/b": {}} and found["ExposedPorts"] == {"80/tcp": {}, "3000/tcp": {}}
    assert found["Labels"] == {"x": "1", "y": "3"} and found["Healthcheck"] == {}
    assert (found["User"], found["WorkingDir"], found["StopSignal"]) == ("1000", "/w", "SIGINT")
    assert _runtime({"volumes": ["/b"]}, {"Volumes": None})["Volumes"] == {"/b": {}}


def test_history_has_a_line_for_each_layer() -> None:
    kept = [{"created_by": "ADD"}, {"created_by": "CMD", "empty_layer": True}]
    found = _config(Recipe(), _base(history=kept))
    assert found["history"] == [*kept, {"created": CREATED, "created_by": "layerbuild files a"}]
    for wrong in ([], [{"created_by": "A"}, {"created_by": "B"}]):
        found = _config(Recipe(), _base(history=wrong))
        assert [h["created_by"] for h in found["history"]] == ["base", "layerbuild files a"]
    assert found["rootfs"] == {"type": "layers", "diff_ids": [_DIGEST, _layer().diff_id]}
    assert found["created"] == CREATED


def test_platform() -> None:
    found = _config(Recipe(platform="linux/arm64/v8"))
    assert (found["os"], found["architecture"], found["variant"]) == ("linux", "arm64", "v8")
    assert "variant" not in _config(Recipe())


def _manifest(base: BaseImage | None, **annotations: str) -> Any:
    return json.loads(manifest_json(Recipe(annotations=annotations), base, [_layer()], _DESCRIPTOR))


def test_docker_media_types_become_oci_ones() -> None:
    prefix = "application/vnd.docker.image.rootfs.diff.tar"
    for docker, ours in ((f"{prefix}.gzip", "gzip"), (prefix, "none")):
        assert _manifest(_base(media_type=docker))["layers"][0]["mediaType"] == MEDIA_TYPES[ours]
    assert _manifest(_base(media_type=MEDIA_TYPES["zstd"]))["layers"][0]["mediaType"] == MEDIA_TYPES["zstd"]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "",
    ],
)
def test_foreign_layers_are_refused(media_type: str) -> None:
    with pytest.raises(LayerbuildError, match=r"docker\.io/acme/base:1 has a layer of type"):
        _manifest(_base(media_type=media_type))


def test_annotations() -> None:
    name, digest = "org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"
    assert "annotations" not in _manifest(None)
    assert _manifest(_base())["annotations"] == {digest: _DIGEST, name: "docker.io/acme/base:1"}
    assert _manifest(_base(), **{name: "other", "a": "b"})["annotations"][name] == "other"
    local = BaseImage(reference="oci:base:1", digest=_DIGEST, manifest={"layers": []}, config={})
    assert _manifest(local)["annotations"] == {digest: _DIGEST}
    layer = _manifest(None)["layers"][0]
    known = {"dev.layerbuild.diff-id": _layer().diff_id, "dev.layerbuild.key": "a" * 64}
    assert layer["annotations"] == {**known, "dev.layerbuild.encoding": "zstd"}
    plain = _layer(algorithm="none").descriptor
    assert dict(plain.annotations) == {**known, "dev.layerbuild.diff-id": plain.digest}


def test_skopeo_takes_config_and_manifest(tmp_path: Path) -> None:
    files = {"recipes/r.yaml": "name: one\nlayers: []\nconfig: {cmd: [/x], env: {A: b}}\nplatform: linux/arm64/v8\n"}
    (image,) = images_of(tmp_path / "project", files)
    tar = MemoryBlob(bytes(1024))
    blob = Blob(encoding="none", digest=tar.digest, size=1024)
    layer = BuiltLayer(key="a" * 64, title="files x", diff_id=tar.digest, size=1024, algorithm="none", blob=blob)
    config = MemoryBlob(config_json(image.recipe, {}, None, [layer]))
    described = Descriptor(media_type=CONFIG, digest=config.digest, size=config.size)
    layout = LayoutDestination("oci:out", tmp_path / "out")
    for part in (tar, config):
        layout.put("one", part, advance=lambda _: None)
    layout.put_manifest("one", "v1", MANIFEST, manifest_json(image.recipe, None, [layer], described))
    command = ["skopeo", "inspect", "--config", f"oci:{tmp_path / 'out'}:one:v1"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert found["architecture"] == "arm64" and found["config"] == {"Env": ["A=b"], "Cmd": ["/x"]}
    copied = f"oci:{tmp_path / 'copy'}:one:v1"
    subprocess.run(["skopeo", "copy", "-q", command[-1], copied], check=True, timeout=60)

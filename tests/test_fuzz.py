"""Whatever stands in recipes, layers, locks and servers' answers: an error with words, and never a traceback.

Examples are derandomized, so that a run is as good as the last one; HYPOTHESIS_SEED=any digs further.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fixtures.pickles import state_dict, torch_zip
from fixtures.project import safetensors
from layerbuild.cli.main import group
from layerbuild.errors import LayerbuildError
from layerbuild.execute.build import parse_base
from layerbuild.lockmodel import LockedBase
from layerbuild.lockparse import parse
from layerbuild.registry.manifests import annotations_of, config_of, layers_of, read_object
from layerbuild.sources import civitaiapi, gitmodules, gittree, hublisting
from layerbuild.webui import launchscript
from layerbuild.webui.changelog import first_release
from layerbuild.webui.installscript import parse as parse_script

_LAYERS = """\
# models
sd: {kind: model, type: checkpoint, source: file:sd.safetensors, filename: "{{ which }}/sd.safetensors"}
old:
  kind: model
  type: embedding
  source: file:old.pt
  sidecars: {.yaml: {source: file:a.txt}}
settings:
  kind: files
  vars: {port: 7860}
  files:
    /opt/app/a.txt: file:a.txt
    /opt/app/b.txt: {template: b.j2, mode: '0600'}
    /opt/app/c: {link: ../x}
clip: {kind: huggingface, source: file:clip, repository: a/b, revision: 0123456789abcdef0123456789abcdef01234567}
"""
_RECIPE = """\
matrix: {which: [one, two]}
name: "worker-{{ which }}"
webui: {root: /webui, version: 1.10.1, ckpt_dir: /data/ckpt}
layers: [sd, old, settings, clip]
config: {cmd: [/start.sh], env: {A: "{{ image.name if image else 1 }}", B: 1}, labels: {a: b}, ports: [80/tcp]}
tags: ["{{ which }}"]
owner: {uid: 1000, gid: 1000}
"""
_FILES: dict[str, bytes] = {
    "sd.safetensors": safetensors(100, {"a": "b"}),
    "old.pt": torch_zip(state_dict()),
    "a.txt": b"text",
    "layers/b.j2": b"port {{ port }}",
    "clip/a.json": b"{}",
}
_fast = settings(
    max_examples=60,
    derandomize="HYPOTHESIS_SEED" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, data in _FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "recipes").mkdir()
    monkeypatch.setenv("LAYERBUILD_STORE", str(tmp_path.parent / f"{tmp_path.name}-store"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _write(tmp_path)
    return tmp_path


def _write(root: Path, layers: str = _LAYERS, recipe: str = _RECIPE) -> None:
    (root / "layers/l.yaml").write_text(layers, encoding="utf-8", errors="surrogatepass")
    (root / "recipes/r.yaml").write_text(recipe, encoding="utf-8", errors="surrogatepass")


def _run(*arguments: str) -> LayerbuildError | None:
    """Runs a command as `main` does, in this process. Whatever is no error of ours goes through."""
    try:
        group.main(["-q", *arguments], standalone_mode=False)
    except LayerbuildError as error:
        assert error.message and not isinstance(error.__cause__, KeyError)
        return error
    except (click.exceptions.Exit, click.ClickException):
        return None
    return None


# --- what is wrong with a text ---------------------------------------------------------------------

_MARKUP = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{{ x }}",
    "{{ ''.__class__ }}",
    "- ",
    ": ",
    "\n",
    "\t",
    "&a ",
    "*a",
    "!!python/name:os ",
]
_SIGNS = ["[", "]", "{", "}", "'", '"', "#", "<<: ", "? ", "|", ">", "%", "@", "`", "=======", "---\n", "~", "/"]
_WORDS = ["null", "true", "kind", "-1", "1e999", ".nan", "0x10", "2024-01-01", "9" * 30, "x" * 300, "..", "../.."]
_ODD = ["\0", "\x1b", "\u2028", "é", "\ud800", "\ufeff"]
_SCHEMES = ["file:", "hf://", "https://[", "git+https://", "oci:", "civitai://", "s3://"]
_TOKENS = st.sampled_from([*_MARKUP, *_SIGNS, *_WORDS, *_ODD, *_SCHEMES])


def _damaged(text: str) -> st.SearchStrategy[str]:
    """`text` with a few pieces cut out, doubled, or replaced."""
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 12), _TOKENS | st.just("") | st.text(max_size=4))

    def apply(edits: list[tuple[int, int, str]]) -> str:
        found = text
        for place, length, new in edits:
            start = place % (len(found) + 1)
            found = found[:start] + new + found[start + length :]
        return found

    return st.lists(edit, min_size=1, max_size=3).map(apply)


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _TOKENS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TOKENS | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _altered(value: Any) -> st.SearchStrategy[Any]:
    """`value` with something else in one or two of its places, or with one place gone."""
    places = list(_paths(value))

    def apply(edits: list[tuple[tuple[Any, ...], Any, bool]]) -> Any:
        found = copy.deepcopy(value)
        for path, new, gone in edits:
            if not path:
                return new
            inner = found
            with contextlib.suppress(KeyError, IndexError, TypeError):
                for key in path[:-1]:
                    inner = inner[key]
                if gone:
                    del inner[path[-1]]
                else:
                    inner[path[-1]] = new
        return found

    return st.lists(st.tuples(st.sampled_from(places), _VALUES, st.booleans()), min_size=1, max_size=2).map(apply)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


class TestDeclarations:
    def test_as_they_are_they_are_right(self, root: Path) -> None:
        for arguments in (["lock"], ["lock", "--check"], ["plan"], ["build"]):
            assert _run(*arguments) is None

    @given(_damaged(_LAYERS))
    @_fast
    def test_text_of_layers(self, root: Path, text: str) -> None:
        _write(root, layers=text)
        _run("lock", "--offline")

    @given(_damaged(_RECIPE))
    @_fast
    def test_text_of_a_recipe(self, root: Path, text: str) -> None:
        _write(root, recipe=text)
        _run("lock", "--offline")

    @given(_altered(yaml.safe_load(_LAYERS)))
    @_fast
    def test_values_of_layers(self, root: Path, value: Any) -> None:
        _write(root, layers=_yaml(value))
        _run("lock", "--offline")

    @given(_altered(yaml.safe_load(_RECIPE)))
    @_fast
    def test_values_of_a_recipe(self, root: Path, value: Any) -> None:
        _write(root, recipe=_yaml(value))
        _run("lock", "--offline")


class TestLocks:
    @pytest.fixture
    def locked(self, root: Path) -> str:
        assert _run("lock") is None and _run("build") is None
        return (root / "lockfile.yaml").read_text(encoding="utf-8")

    def _try(self, root: Path, text: str) -> None:
        (root / "lockfile.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        for arguments in (["plan"], ["build", "--frozen"], ["lock", "--offline"]):
            _run(*arguments)

    @given(st.data())
    @_fast
    def test_text(self, root: Path, locked: str, data: st.DataObject) -> None:
        self._try(root, data.draw(_damaged(locked)))

    @given(st.data())
    @_fast
    def test_values(self, root: Path, locked: str, data: st.DataObject) -> None:
        self._try(root, _yaml(data.draw(_altered(yaml.safe_load(locked)))))

    @given(_VALUES)
    @example({"version": 1, "layers": {}, "files": {1: {}}})
    @example({"version": 1, "receipts": []})
    @_fast
    def test_anything(self, value: Any) -> None:
        with contextlib.suppress(LayerbuildError):
            parse(_yaml(value))


# --- what servers say -----------------------------------------------------------------------------

_LAUNCH = """\
def prepare_environment():
    blip = os.environ.get('BLIP_REPO', "https://github.com/salesforce/BLIP.git")
    blip_hash = os.environ.get('BLIP_COMMIT_HASH', "48211a1594f1321b00f14c9f7a5b4813144b2fb9")
    git_clone(blip, repo_dir('BLIP'), "BLIP", blip_hash)
"""
_DIGEST = "sha256:" + "a" * 64
_ANSWER = {
    "sha": "a" * 40,
    "siblings": [
        {"rfilename": "a.json", "size": 2, "blobId": "b" * 40},
        {"rfilename": "x/m.safetensors", "size": 9, "blobId": "b" * 40, "lfs": {"sha256": "c" * 64, "size": 9}},
    ],
}
_TREE = [
    {"type": "directory", "path": "x", "oid": "b" * 40, "size": 0},
    {"type": "file", "path": "a.json", "oid": "b" * 40, "size": 2},
    {"type": "file", "path": "x/m", "oid": "b" * 40, "size": 9, "lfs": {"oid": "c" * 64, "size": 9, "pointerSize": 1}},
]
_VERSION = {
    "id": 1,
    "modelId": 2,
    "name": "v1",
    "availability": "Public",
    "model": {"name": "night", "type": "Checkpoint", "mode": None},
    "files": [
        {
            "id": 3,
            "name": "night.safetensors",
            "sizeKB": 2.5,
            "type": "Model",
            "primary": True,
            "metadata": {"fp": "fp16", "size": "pruned", "format": "SafeTensor"},
            "pickleScanResult": "Success",
            "virusScanResult": "Success",
            "hashes": {"SHA256": "AA" * 32, "AutoV2": "AA" * 5},
            "downloadUrl": "https://civitai.com/api/download/models/1",
        }
    ],
}
_MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 2},
    "layers": [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": _DIGEST,
            "size": 10,
            "annotations": {"dev.layerbuild.key": "k"},
        }
    ],
}
_CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["A=b"], "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}},
    "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
    "history": [{"created_by": "x"}],
}


def _answers(value: Any) -> st.SearchStrategy[bytes]:
    text = json.dumps(value)
    bytes_ = (_altered(value) | _VALUES).map(lambda v: json.dumps(v).encode())
    return bytes_ | _damaged(text).map(lambda t: t.encode(errors="surrogatepass")) | st.binary(max_size=40)


def _base(manifest: bytes, config: bytes) -> None:
    base = LockedBase(reference="docker.io/acme/base:1", digest=_DIGEST)
    parse_base(base, manifest, config)


def _manifest(body: bytes) -> None:
    document = read_object(body, "here")
    config_of(document, "here")
    layers_of(document, "here")
    for layer in document["layers"]:
        annotations_of(layer)


class TestAnswers:
    def _try(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(LayerbuildError):
            function(*arguments)

    @given(_answers(_ANSWER))
    @settings(_fast, max_examples=150)
    def test_of_a_hub(self, body: bytes) -> None:
        self._try(hublisting.parse_revision, body, "acme/x", "main")

    @given(_answers(_TREE))
    @settings(_fast, max_examples=150)
    def test_pages_of_a_hub(self, body: bytes) -> None:
        self._try(hublisting.add_page, hublisting.Listing("acme/x"), body)

    @given(_answers(_VERSION))
    @settings(_fast, max_examples=150)
    def test_of_civitai(self, body: bytes) -> None:
        self._try(lambda: civitaiapi._version(civitaiapi._object(body, "civitai://1"), "civitai://1"))
        page = b'{"modelVersions": [' + body + b"]}"
        self._try(lambda: civitaiapi._newest(civitaiapi._object(page, "a model"), "a model"))

    @given(_answers(_MANIFEST))
    @settings(_fast, max_examples=150)
    def test_manifests(self, body: bytes) -> None:
        self._try(_manifest, body)
        self._try(_base, body, json.dumps(_CONFIG).encode())

    @given(_answers(_CONFIG))
    @settings(_fast, max_examples=150)
    def test_configs(self, body: bytes) -> None:
        self._try(_base, json.dumps(_MANIFEST).encode(), body)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"100644", b"120000", b"160000", b"040000", b"x", b""]),
                st.sampled_from([b"blob", b"tree", b"commit", b""]),
                st.sampled_from([b"a" * 40, b"A" * 40, b"", b"-"]),
                st.sampled_from([b"1", b"-", b"-1", b"\xc2\xb2", b"99999999999999999999"]),
                st.binary(max_size=8) | st.sampled_from([b"a/b", b"..", b".git/x", b"a", b"a//b"]),
            ).map(lambda t: b" ".join(t[:4]) + b"\t" + t[4]),
            max_size=4,
        ).map(b"\0".join)
    )
    @settings(_fast, max_examples=150)
    def test_trees_of_git(self, output: bytes) -> None:
        with contextlib.suppress(LayerbuildError):
            tree = gittree.parse(output, what="x")
            gittree.document(tree.entries, lambda found: {e.blob: b"../x" for e in found}, what="x")

    @given(st.text(max_size=60) | _damaged("## 1.10.1\n\n### Features:\n * x (#1)\n"))
    @_fast
    def test_changelogs(self, text: str) -> None:
        first_release(text)

    @given(_damaged("import launch\nif not launch.is_installed('a'):\n    launch.run_pip('install a', 'a')\n"))
    @_fast
    def test_install_scripts(self, text: str) -> None:
        parse_script(text)

    @given(_damaged(_LAUNCH))
    @settings(_fast, max_examples=150)
    def test_launch_scripts(self, text: str) -> None:
        self._try(partial(launchscript.checkouts, what="x"), text, "modules/launch_utils.py")

    @given(_damaged('[submodule "a"]\n\tpath = a\n\turl = ../b.git\n'), st.text(max_size=20) | _TOKENS)
    @_fast
    def test_submodules(self, listed: str, url: str) -> None:
        self._try(partial(gitmodules.addresses, what="x"), listed.encode(errors="surrogatepass"))
        self._try(partial(gitmodules.source_of, what="x"), url, "git+https://example.com/a/b.git")

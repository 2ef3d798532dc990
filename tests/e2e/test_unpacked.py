"""One image with everything in it, unpacked by umoci, and read by those for whom it was made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from e2e.readers import MTIME, call, expected_tree, sha256, tree, unpack
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub, git_blob
from fixtures.pickles import harmless
from fixtures.project import BIG, Project, safetensors
from fixtures.web import Web

pytestmark = pytest.mark.xdist_group("unpacked")

_PEERS = Path(__file__).parents[2] / ".peers"
_CLIP = "openai/clip-vit-large-patch14"

_CHECKPOINT = safetensors(BIG, {"format": "pt"}, seed=1)
_LORA = safetensors(3000, {"ss_output_name": "ink"}, seed=2)
_EMBEDDING = harmless("an embedding")
_UNET = safetensors(BIG, seed=3)
_CONFIG = b"model: {target: ldm.models.diffusion.ddpm.LatentDiffusion}\n"


def _tokenizer() -> dict[str, bytes]:
    """CLIP's tokenizer with a vocabulary of single bytes."""
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    merged = ["ca", "cat</w>"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    about = {**special, "pad_token": "<|endoftext|>", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    return {
        "vocab.json": json.dumps({token: number for number, token in enumerate(tokens)}).encode(),
        "merges.txt": b"#version: 0.2\nc a\nca t</w>\n",
        "special_tokens_map.json": json.dumps(special).encode(),
        "tokenizer_config.json": json.dumps(about).encode(),
        "config.json": json.dumps({"model_type": "clip"}).encode(),
    }


_SMALL = {**_tokenizer(), "text/part/config.json": b"{}"}
_BERT = {"vocab.txt": b"[PAD]\n", "config.json": b'{"model_type": "bert"}'}
_WEBUI = {
    "webui.py": b"print('webui')\n",
    "webui.sh": ("100755", b"#!/bin/sh\n"),
    "models/Stable-diffusion/Put Stable Diffusion checkpoints here.txt": b"",
    "html/licenses.html": ("120000", b"../webui.py"),
    "scripts/cr\u00e9dits.py": b"# more than ASCII\n",
}
_LAYERS = """
webui:
  kind: webui
  source: git+file:webui.git@main
  version: 1.10.1
  repositories: {BLIP: git+file:blip.git@main}
sd:
  kind: model
  type: checkpoint
  source: file:sd.safetensors
  filename: sub/sd.safetensors
  sidecars: {.yaml: file:sd.yaml}
ink: {kind: model, type: lora, source: file:ink.safetensors, links: file}
style: {kind: model, type: embedding, source: file:style.pt}
bert: {kind: huggingface, source: hf://bert-base-uncased@main}
clip: {kind: huggingface, source: hf://openai/clip-vit-large-patch14@main, absent: [added_tokens.json]}
worker:
  kind: files
  files:
    /opt/worker/start.sh: {template: start.sh.j2, mode: "0755"}
    /opt/worker/latest: {link: start.sh}
    /srv/data.bin: file:style.pt
"""
_RECIPE = """
name: all
webui: {root: /opt/webui}
compression: gzip
layers: [webui, sd, ink, style, bert, clip, worker]
config: {cmd: [/opt/worker/start.sh]}
tags: [v1]
"""


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """The image's root file system, and where it comes from."""

    root: Path
    commit: str
    bert: str

    @property
    def home(self) -> Path:
        """HF_HOME in it."""
        return self.root / "opt/huggingface"

    def inside(self, path: str) -> bytes:
        """Content of an absolute path as a process in the container sees it, links followed."""
        for _ in range(9):
            place = self.root / path.lstrip("/")
            if not place.is_symlink():
                return place.read_bytes()
            path = os.path.normpath(PurePosixPath(path).parent / place.readlink())
        raise AssertionError(path)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unpacked]:
    directory = tmp_path_factory.mktemp("unpacked")
    with Web() as web, Web() as cdn:
        hub = Hub(web, cdn)
        commit = hub.add(_CLIP, files=_SMALL, lfs={"model.safetensors": _UNET})
        bert = hub.add("bert-base-uncased", files=_BERT)
        project = Project(directory / "project", directory / "store", {"HF_ENDPOINT": hub.endpoint})
        GitRepo(project.root / "webui.git").commit(_WEBUI)
        GitRepo(project.root / "blip.git").commit({"models/blip.py": b"# blip\n"})
        project.write(
            {
                "layers/all.yaml": _LAYERS,
                "layers/start.sh.j2": "#!/bin/sh\nexec python {{ webui.root }}/webui.py\n",
                "recipes/all.yaml": _RECIPE,
                "sd.safetensors": _CHECKPOINT,
                "sd.yaml": _CONFIG,
                "ink.safetensors": _LORA,
                "style.pt": _EMBEDDING,
            }
        )
        project.run("lock")
        project.run("push", f"oci:{directory / 'layout'}")
    yield Unpacked(root=unpack(directory / "layout", "all:v1", directory / "bundle"), commit=commit, bert=bert)


def test_tree_is_what_was_declared(unpacked: Unpacked) -> None:
    hub = "opt/huggingface/hub"
    clip = f"{hub}/models--openai--clip-vit-large-patch14"
    bert = f"{hub}/models--bert-base-uncased"
    weights = "opt/weights/sha256"
    found = tree(unpacked.root)
    cache = found.pop("opt/webui/cache.json")
    assert cache[1] == 0o644 and cache[-1] == MTIME
    files = {
        "opt/webui/webui.py": b"print('webui')\n",
        "opt/webui/webui.sh": b"#!/bin/sh\n",
        "opt/webui/models/Stable-diffusion/Put Stable Diffusion checkpoints here.txt": b"",
        "opt/webui/scripts/cr\u00e9dits.py": b"# more than ASCII\n",
        "opt/webui/repositories/BLIP/models/blip.py": b"# blip\n",
        "opt/webui/models/Lora/ink.safetensors": _LORA,
        "opt/worker/start.sh": b"#!/bin/sh\nexec python /opt/webui/webui.py\n",
        "srv/data.bin": _EMBEDDING,
        f"{hub}/version.txt": b"1",
        f"{clip}/refs/main": unpacked.commit.encode(),
        f"{clip}/.no_exist/{unpacked.commit}/added_tokens.json": b"",
        **{f"{clip}/blobs/{git_blob(content)}": content for content in _SMALL.values()},
        f"{bert}/refs/main": unpacked.bert.encode(),
        **{f"{bert}/blobs/{git_blob(content)}": content for content in _BERT.values()},
        **{f"{weights}/{sha256(data)}": data for data in (_CHECKPOINT, _CONFIG, _EMBEDDING, _UNET)},
    }
    links = {
        "opt/webui/html/licenses.html": "../webui.py",
        "opt/webui/models/Stable-diffusion/sub/sd.safetensors": f"/{weights}/{sha256(_CHECKPOINT)}",
        "opt/webui/models/Stable-diffusion/sub/sd.yaml": f"/{weights}/{sha256(_CONFIG)}",
        "opt/webui/embeddings/style.pt": f"/{weights}/{sha256(_EMBEDDING)}",
        "opt/worker/latest": "start.sh",
        f"{clip}/snapshots/{unpacked.commit}/model.safetensors": f"/{weights}/{sha256(_UNET)}",
        **{
            f"{clip}/snapshots/{unpacked.commit}/{name}": "../" * (2 + name.count("/")) + f"blobs/{git_blob(content)}"
            for name, content in _SMALL.items()
        },
        **{f"{bert}/snapshots/{unpacked.bert}/{n}": f"../../blobs/{git_blob(c)}" for n, c in _BERT.items()},
    }
    executable = ("opt/webui/webui.sh", "opt/worker/start.sh")
    wanted = expected_tree(files=files, links=links, executable=executable)
    # Nobody's directory: no layer has an entry for it, so its time is that of the unpacking.
    assert found.pop("opt")[:2] == wanted.pop("opt")[:2]
    assert found == wanted


def test_every_hash_is_valid_by_the_webuis_rule(unpacked: Unpacked) -> None:
    root = "/opt/webui"
    cache = json.loads(unpacked.inside(f"{root}/cache.json"))
    models = {
        ("hashes", "checkpoint/sub/sd.safetensors"): f"{root}/models/Stable-diffusion/sub/sd.safetensors",
        ("hashes-addnet", "lora/ink"): f"{root}/models/Lora/ink.safetensors",
        ("hashes", "textual_inversion/style"): f"{root}/embeddings/style.pt",
    }
    entries = {(section, key) for section in ("hashes", "hashes-addnet") for key in cache[section]}
    assert entries == set(models)
    for (section, key), path in models.items():
        data = unpacked.inside(path)
        body = data[8 + int.from_bytes(data[:8], "little") :] if section == "hashes-addnet" else data
        # The webui hashes anew where the file is younger than the entry; its development branch where they differ.
        assert cache[section][key] == {"mtime": float(MTIME), "sha256": sha256(body)}
    assert cache["safetensors-metadata"] == {
        "checkpoint/sub/sd.safetensors": {"mtime": float(MTIME), "value": {"format": "pt"}},
        "lora/ink": {"mtime": float(MTIME), "value": {"ss_output_name": "ink"}},
    }
    assert not (unpacked.root / "opt/webui/cache").exists()


_READ = """
import os, sys
from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.file_download import _CACHED_NO_EXIST
name = sys.argv[1]
for revision in ("main", sys.argv[2]):
    folder = snapshot_download(name, revision=revision, local_files_only=True)
    path = hf_hub_download(name, "text/part/config.json", revision=revision)
    assert path == os.path.join(folder, "text/part/config.json"), path
    assert os.path.getsize(path) == 2
    assert try_to_load_from_cache(name, "added_tokens.json", revision=revision) is _CACHED_NO_EXIST
    assert try_to_load_from_cache(name, "other.json", revision=revision) is None
    print(folder)
"""

_SCAN = """
from huggingface_hub import scan_cache_dir
for repo in scan_cache_dir().repos:
    (revision,) = repo.revisions
    print(repo.repo_id, revision.commit_hash, *revision.refs, *sorted(f.file_name for f in revision.files))
"""

_TOKENIZE = """
from transformers import CLIPTokenizer
tokenizer = CLIPTokenizer.from_pretrained("openai/clip-vit-large-patch14")
numbers = tokenizer("cat")["input_ids"]
assert numbers[0] == tokenizer.bos_token_id and numbers[-1] == tokenizer.eos_token_id, numbers
assert tokenizer.decode(numbers[1:-1]).strip() == "cat", numbers
print("tokenized")
"""


def _client(peer: str, home: Path, script: str, *arguments: str) -> str:
    """A client's standard output; a warning or a word on standard error fails the test."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(_PEERS / peer),
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        # Advice to install PyTorch; warnings stay.
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        env=environ,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, ""), (done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode()


@pytest.mark.parametrize("peer", ["hub-old", "hub-new"])
def test_hugging_face_clients_read_the_snapshot_offline(unpacked: Unpacked, peer: str) -> None:
    before = tree(unpacked.home)
    folders = _client(peer, unpacked.home, _READ, _CLIP, unpacked.commit).split()
    folder = unpacked.home / "hub/models--openai--clip-vit-large-patch14/snapshots" / unpacked.commit
    assert folders == [str(folder)] * 2
    assert tree(unpacked.home) == before


def test_newest_client_lists_the_cache(unpacked: Unpacked) -> None:
    # The other repository's large file leads somewhere only inside of the image: it is not listed from outside.
    found = _client("hub-new", unpacked.home, _SCAN).split()
    assert found == ["bert-base-uncased", unpacked.bert, "main", *sorted(_BERT)]


def test_transformers_reads_the_tokenizer_offline(unpacked: Unpacked) -> None:
    assert _client("transformers", unpacked.home, _TOKENIZE) == "tokenized\n"


def test_large_file_of_the_snapshot_is_whole(unpacked: Unpacked) -> None:
    path = f"/opt/huggingface/hub/models--openai--clip-vit-large-patch14/snapshots/{unpacked.commit}/model.safetensors"
    assert unpacked.inside(path) == _UNET


def test_skopeo_reads_the_gzip_layout(unpacked: Unpacked) -> None:
    layout = unpacked.root.parent.parent / "layout"
    about = json.loads(call("skopeo", "inspect", f"oci:{layout}:all:v1"))
    assert "HF_HUB_OFFLINE=1" in about["Env"] and "HF_HOME=/opt/huggingface" in about["Env"]
    types = {layer["MIMEType"] for layer in about["LayersData"]} if "LayersData" in about else set()
    assert types <= {f"application/vnd.oci.image.layer.v1.tar{suffix}" for suffix in ("", "+gzip")}

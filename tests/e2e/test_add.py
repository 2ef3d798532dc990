"""`layerbuild add`: from what a person has to a declaration that locks."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.civitai import Civitai
from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.inprocess import Run
from fixtures.project import Project
from fixtures.web import Answer, Asked, Web

_RECIPE = "# mine\nname: worker\nwebui: {root: /webui, version: 1.10.1}\nlayers: []  # none yet\n"
_LORA = "lora_unet_x.lora_down.weight"
_CHECKPOINT = "cond_stage_model.transformer.x"


def tensors(*names: str, size: int = 16) -> bytes:
    """A safetensors file with tensors of these names."""
    places = {name: [size * i, size * i + size] for i, name in enumerate(names)}
    spans = {name: {"dtype": "U8", "shape": [size], "data_offsets": place} for name, place in places.items()}
    header = json.dumps(spans).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size) * len(names)


@pytest.fixture
def worker(project: Project) -> Project:
    """A recipe without layers."""
    (project.root / "layers").rmdir()
    return project.write({"recipes/worker.yaml": _RECIPE})


def layers(project: Project, file: str = "models") -> Any:
    return yaml.safe_load((project.root / f"layers/{file}.yaml").read_text(encoding="utf-8"))


def add(run: Run, project: Project, *arguments: str) -> Any:
    """Adds, locks, and gives what `add` said."""
    done = run(project, "add", *arguments, "--json")
    assert done.code == 0, done
    locked = run(project, "lock")
    assert locked.code == 0, locked
    return done.json["added"]


class TestHub:
    def test_a_file_is_pinned_and_typed_by_its_header(self, worker: Project, hub: Hub, run: Run) -> None:
        big = tensors(_CHECKPOINT, size=2**20)
        commit = hub.add("acme/night", lfs={"night.safetensors": big, "other.safetensors": b"x"})
        worker.environ["HF_ENDPOINT"] = hub.endpoint
        page = "https://huggingface.co/acme/night"
        (made,) = add(run, worker, f"{page}/blob/main/night.safetensors", "--to", "worker")
        assert made == {"name": "night", "file": "layers/models.yaml", "new": True, "about": "checkpoint"}
        found = layers(worker)["night"]
        assert found["type"] == "checkpoint" and found["homepage"] == page and found["size"] == len(big)
        assert found["source"] == f"hf://acme/night@{commit}/night.safetensors" and len(found["sha256"]) == 64
        text = (worker.root / "layers/models.yaml").read_text(encoding="utf-8")
        assert f"# added from {page}, as of main" in text and "licence is not told" in text
        assert (worker.root / "recipes/worker.yaml").read_text() == _RECIPE.replace("[]", "[night]")
        # Only the header was read, by `add` and by `lock`.
        assert all("range" in asked.headers for asked in hub.cdn_requests)

    def test_a_repository_with_one_model_is_that_model(self, worker: Project, hub: Hub, run: Run) -> None:
        hub.add("acme/ink", files={"README.md": b"x"}, lfs={"ink.safetensors": tensors(_LORA), "ink.ckpt": b"y"})
        worker.environ["HF_ENDPOINT"] = hub.endpoint
        add(run, worker, "acme/ink")
        assert layers(worker)["ink"]["type"] == "lora"

    def test_several_models_are_listed(self, worker: Project, hub: Hub, run: Run) -> None:
        hub.add("acme/two", lfs={"a.safetensors": tensors(_LORA), "b.safetensors": tensors(_LORA)})
        worker.environ["HF_ENDPOINT"] = hub.endpoint
        done = run(worker, "add", "hf://acme/two")
        done.failed(2, "hf://acme/two/a.safetensors", "hf://acme/two/b.safetensors", "--type huggingface")
        assert not (worker.root / "layers").exists()

    def test_a_repository_of_a_library_is_a_snapshot(self, worker: Project, hub: Hub, run: Run) -> None:
        files = {"config.json": b"{}", "vocab.json": b"{}"}
        hub.add("acme/clip", files=files, lfs={"model.safetensors": tensors("x"), "pytorch_model.bin": b"pickle"})
        worker.environ["HF_ENDPOINT"] = hub.endpoint
        add(run, worker, "acme/clip", "--to", "worker")
        found = layers(worker, "huggingface")["clip"]
        assert found["kind"] == "huggingface" and found["files"] == ["!*.bin"]
        (pin,) = worker.lock["layers"]["clip"]["pins"].values()
        assert {file["path"] for file in pin["files"]} == {"config.json", "model.safetensors", "vocab.json"}

    def test_a_licence_of_the_card_is_kept(self, worker: Project, hub: Hub, run: Run) -> None:
        hub.add("acme/ink", lfs={"ink.safetensors": tensors(_LORA)})
        worker.environ["HF_ENDPOINT"] = hub.endpoint
        path = "/api/models/acme/ink/revision/main"
        answer = hub._api(_asked(path), "models/acme/ink/revision/main")
        value = json.loads(answer.body)
        for tags, card, found in (
            (["license:mit"], None, "mit"),
            ([], {"license": "openrail"}, "openrail"),
            (["license:\n# evil"], {"license": ["x"]}, None),
        ):
            body = json.dumps({**value, "tags": tags, "cardData": card}).encode()
            hub.script(path, Answer(body=body, headers={"Content-Type": "application/json"}))
            assert run(worker, "add", "acme/ink").code == 0
            assert layers(worker)["ink"].get("licence") == found
            (worker.root / "layers/models.yaml").unlink()


def _asked(path: str) -> Asked:
    return Asked(method="GET", path=path, query="blobs=true", headers={}, body=b"")


class TestCivitai:
    def test_the_newest_version_of_a_page(self, worker: Project, civitai: Civitai, run: Run) -> None:
        civitai.add(130072, {"night v1.safetensors": tensors(_LORA)}, model={"name": "Night", "type": "LORA"})
        civitai.versions[130072]["modelId"] = 4384
        worker.environ |= {"CIVITAI_ENDPOINT": civitai.endpoint, "CIVITAI_TOKEN": civitai.token}
        add(run, worker, "https://civitai.com/models/4384/night", "--to", "worker")
        found = layers(worker)["night-v1"]
        assert found["type"] == "lora" and found["source"] == "civitai://130072?file=1300720"
        assert found["homepage"] == "https://civitai.com/models/4384?modelVersionId=130072"
        assert found["description"] == "Night v1.0" and found["filename"] == "night v1.safetensors"
        assert "# for SD 1.5" in (worker.root / "layers/models.yaml").read_text(encoding="utf-8")
        # The same page again is nothing new.
        again = run(worker, "add", "https://civitai.com/models/4384")
        assert again.code == 0 and "declared already in layers/models.yaml:" in again.out
        assert list(layers(worker)) == ["night-v1"]

    @pytest.mark.parametrize(
        ("told", "found"),
        [("Checkpoint", "checkpoint"), ("TextualInversion", "embedding"), ("VAE", "vae"), ("Upscaler", "upscaler")],
    )
    def test_a_pickle_is_what_its_page_says(
        self, worker: Project, civitai: Civitai, run: Run, told: str, found: str
    ) -> None:
        civitai.add(7, {"x.pt": b"\x80\x02}."}, model={"name": "X", "type": told})
        worker.environ["CIVITAI_ENDPOINT"] = civitai.endpoint
        add(run, worker, "civitai://7")
        assert layers(worker)["x"]["type"] == found

    def test_a_token_in_a_link_goes_nowhere(self, worker: Project, civitai: Civitai, run: Run) -> None:
        civitai.add(7, {"x.safetensors": tensors(_LORA)})
        worker.environ["CIVITAI_ENDPOINT"] = civitai.endpoint
        token = "0123456789abcdefSECRET"
        done = run(worker, "add", f"https://civitai.com/api/download/models/7?type=Model&token={token}")
        assert done.code == 0 and "CIVITAI_TOKEN" in done.err
        texts = [done.out, done.err, *(p.read_text() for p in worker.root.rglob("*.yaml"))]
        assert not any(token in text for text in texts)
        assert not any(token in str(asked) for asked in civitai.web.requests)

    def test_a_hostile_answer_is_no_declaration(self, worker: Project, civitai: Civitai, run: Run) -> None:
        version = civitai.add(7, {"x.safetensors": tensors(_LORA)})
        worker.environ["CIVITAI_ENDPOINT"] = civitai.endpoint
        version["model"]["name"] = "a\n\nb: c\x1b[31m"
        version["files"][0]["name"] = "{{ lipsum }}.safetensors"
        run(worker, "add", "civitai://7").failed(2, "markup")
        version["files"][0]["name"] = "../x.safetensors"
        run(worker, "add", "civitai://7").failed(1, "no layer may hold")
        version["files"][0]["name"] = "x: y.safetensors"
        version["name"] = "{{ lipsum }}"
        assert run(worker, "add", "civitai://7", "--name", "seven").code == 0
        assert "description" not in layers(worker)["seven"] and (worker.root / "layers/models.yaml").unlink() is None
        version["name"] = "v1.0"
        assert run(worker, "add", "civitai://7").code == 0
        assert layers(worker)["x-y"]["description"] == "a b: c [31m v1.0"


class TestFiles:
    def test_a_file_of_the_project(self, worker: Project, run: Run) -> None:
        worker.write({"models/House Style.safetensors": tensors(_LORA)})
        (made,) = add(run, worker, "models/House Style.safetensors", "--to", "recipes/worker.yaml")
        assert made["name"] == "house-style"
        assert layers(worker)["house-style"]["source"] == "file:models/House Style.safetensors"

    def test_a_file_elsewhere_is_named_by_its_whole_path(self, worker: Project, run: Run, tmp_path: Path) -> None:
        (tmp_path / "x.safetensors").write_bytes(tensors(_LORA))
        done = run(worker, "add", str(tmp_path / "x.safetensors"))
        assert done.code == 0 and "outside of the project" in done.err
        assert layers(worker)["x"]["source"] == f"file:{tmp_path / 'x.safetensors'}"

    def test_several_at_once_or_none(self, worker: Project, run: Run) -> None:
        worker.write({"a.safetensors": tensors(_LORA), "b.safetensors": tensors("emb_params"), "odd.ckpt": b"x"})
        run(worker, "add", "a.safetensors", "odd.ckpt").failed(2, "odd.ckpt", "--type", "upscaler")
        assert not (worker.root / "layers").exists()
        made = add(run, worker, "a.safetensors", "b.safetensors", "a.safetensors", "--to", "worker")
        assert [m["new"] for m in made] == [True, True, False]
        assert {name: layer["type"] for name, layer in layers(worker).items()} == {"a": "lora", "b": "embedding"}
        recipe = yaml.safe_load((worker.root / "recipes/worker.yaml").read_text(encoding="utf-8"))
        assert recipe["layers"] == ["a", "b"]

    def test_the_users_word_counts(self, worker: Project, run: Run) -> None:
        worker.write({"odd.ckpt": b"x", "x.safetensors": tensors(_LORA)})
        add(run, worker, "odd.ckpt", "--type", "checkpoint", "--name", "mine", "--filename", "sub/a.ckpt")
        assert layers(worker)["mine"] == {
            "kind": "model",
            "type": "checkpoint",
            "source": "file:odd.ckpt",
            "filename": "sub/a.ckpt",
        }
        run(worker, "add", "x.safetensors", "odd.ckpt", "--name", "y").failed(2, "--name")

    @pytest.mark.parametrize("broken", [b"", b"abc", (2**62).to_bytes(8, "little"), b"\x08" + b"\0" * 7 + b"[" * 8])
    def test_a_broken_header_tells_nothing(self, worker: Project, run: Run, broken: bytes) -> None:
        worker.write({"x.safetensors": broken})
        run(worker, "add", "x.safetensors").failed(2, "cannot tell", "--type")

    def test_what_is_not_there(self, worker: Project, run: Run) -> None:
        run(worker, "add", "file:gone.safetensors").failed(1, "gone.safetensors", "does not exist")
        run(worker, "add", "recipes").failed(2, "is a directory")


class TestWeb:
    def test_a_link_is_looked_at_and_not_downloaded(self, worker: Project, web: Web, run: Run) -> None:
        data = tensors("decoder.conv_in.weight", size=2**21)
        web.route("/x/vae.safetensors", data)
        done = run(worker, "add", f"{web.url}/x/vae.safetensors")
        assert done.code == 0, done
        assert layers(worker)["vae"]["type"] == "vae" and "sha256" not in layers(worker)["vae"]
        assert web.sent["/x/vae.safetensors"] < 2**19

    def test_secrets_are_refused(self, worker: Project, web: Web, run: Run) -> None:
        for address in (f"{web.url}/a.pt?X-Amz-Signature=SECRET", "https://me:SECRET@files.example.com/a.pt"):
            done = run(worker, "add", address, "--type", "vae").failed(1)
            assert "SECRET" not in done.err + done.out
        assert not (worker.root / "layers").exists() and not web.requests


class TestConflicts:
    def test_a_name_that_is_taken_is_never_replaced(self, worker: Project, run: Run) -> None:
        text = "# mine\nx: {kind: model, type: vae, source: file:old.pt}\n"
        worker.write(
            {"layers/mine.yaml": text, "new/x.safetensors": tensors(_LORA), "sd15.safetensors": tensors(_LORA)}
        )
        run(worker, "add", "new/x.safetensors").failed(2, "layers/mine.yaml:2", "--name")
        run(worker, "add", "sd15.safetensors").failed(2, "catalog/models.yaml", "--name")
        assert [p.name for p in (worker.root / "layers").iterdir()] == ["mine.yaml"]
        assert (worker.root / "layers/mine.yaml").read_text() == text

    def test_the_catalogs_bytes_need_no_declaration(self, worker: Project, run: Run, hub: Hub) -> None:
        hub.add("openai/clip-vit-large-patch14", files={"vocab.json": b"{}"})
        worker.environ["HF_ENDPOINT"] = hub.endpoint
        done = run(worker, "add", "hf://openai/clip-vit-large-patch14", "--to", "worker")
        assert done.code == 0 and "clip-l14 is declared already in catalog/huggingface.yaml" in done.out
        assert not (worker.root / "layers").exists()
        assert "layers: [clip-l14]  # none yet" in (worker.root / "recipes/worker.yaml").read_text()

    def test_a_file_that_is_closed_is_left_alone(self, worker: Project, run: Run) -> None:
        worker.write({"layers/models.yaml": "a: {kind: files, files: {/x: {content: y}}}\n...\n"})
        worker.write({"x.safetensors": tensors(_LORA)})
        (made,) = add(run, worker, "x.safetensors")
        assert made["file"] == "layers/x.yaml"

    def test_no_project_names_init(self, project: Project, run: Run) -> None:
        (project.root / "recipes").rmdir()
        run(project, "add", "a/b").failed(2, "layerbuild init")


class TestTrees:
    @pytest.fixture
    def address(self, worker: Project, web: Web) -> str:
        repo = GitRepo(worker.root / "git" / "sd-webui-controlnet")
        self.commit = repo.commit({"scripts/controlnet.py": b"x = 1\n"})
        web.handle("/sd-webui-controlnet/", repo.serve)
        return f"git+{web.url}/sd-webui-controlnet"

    def use(self, worker: Project, names: Sequence[str]) -> None:
        worker.write({"recipes/worker.yaml": f"name: worker\nlayers: [{', '.join(names)}]\n"})

    def test_an_extension_goes_to_the_projects_webui(self, worker: Project, run: Run, address: str) -> None:
        text = (
            "# mine\nmine:\n  kind: webui\n  source: git+file:git/sd-webui-controlnet@main  # here\n  version: 1.10.1\n"
        )
        worker.write({"layers/webui.yaml": text})
        self.use(worker, ["mine"])
        (made,) = add(run, worker, address, "--to", "worker")
        assert made["name"] == "mine: sd-webui-controlnet"
        after = (worker.root / "layers/webui.yaml").read_text()
        assert after == f"{text}  extensions:\n    sd-webui-controlnet: {address}@{self.commit}\n"
        again = run(worker, "add", f"{address}@main")
        assert "declared already" in again.out and (worker.root / "layers/webui.yaml").read_text() == after

    def test_the_catalogs_webui_becomes_the_projects_own(self, worker: Project, run: Run, address: str) -> None:
        self.use(worker, ["webui-1.9.4"])
        done = run(worker, "add", address)
        assert done.code == 0, done
        found = layers(worker, "webui")["webui-1.9.4"]
        assert found["extensions"] == {"sd-webui-controlnet": f"{address}@{self.commit}"}
        assert len(found["repositories"]) == 5 and "takes its place" in (worker.root / "layers/webui.yaml").read_text()

    def test_several_webuis_need_a_word(self, worker: Project, run: Run, address: str) -> None:
        self.use(worker, ["webui-1.9.4"])
        worker.write({"recipes/b.yaml": "name: b\nlayers: [webui-1.10.1]\n"})
        run(worker, "add", address).failed(2, "webui-1.10.1, webui-1.9.4", "--to RECIPE")
        assert run(worker, "add", address, "--to", "b").code == 0
        assert list(layers(worker, "webui")) == ["webui-1.10.1"]
        run(worker, "add", address, "--to", "c").failed(2, "no recipe 'c'", "worker")


class TestWhatIsRefused:
    @pytest.mark.parametrize("name", ["bad name", "../ink", "a:b", "_ink"])
    def test_a_name_that_lock_would_refuse(self, worker: Project, run: Run, name: str) -> None:
        worker.write({"ink.safetensors": tensors(_LORA)})
        run(worker, "add", "ink.safetensors", "--name", name).failed(2, "cannot be declared: not a layer name")
        assert not (worker.root / "layers").exists()

    def test_a_file_as_a_snapshot(self, worker: Project, run: Run) -> None:
        worker.write({"ink.safetensors": tensors(_LORA)})
        run(worker, "add", "ink.safetensors", "--type", "huggingface").failed(2, "'checkpoint'")
        assert not (worker.root / "layers").exists()

    @pytest.mark.parametrize("own", [True, False])
    def test_a_directory_of_an_extension_elsewhere(self, worker: Project, run: Run, own: bool) -> None:
        GitRepo(worker.root / "git" / "ext").commit({"x.py": b"x = 1\n"})
        if own:
            worker.write({"layers/webui.yaml": "mine: {kind: webui, source: git+file:git/ext@main, version: 1.10.1}\n"})
        done = run(worker, "add", "git+file:git/ext@main", "--name", "../ext")
        done.failed(2, "cannot be declared: expected a name")

    def test_a_file_where_layers_should_be(self, worker: Project, run: Run) -> None:
        worker.write({"ink.safetensors": tensors(_LORA), "layers": ""})
        run(worker, "add", "ink.safetensors").failed(2, "layers is there, and is no directory")


def test_two_at_once_keep_both(worker: Project) -> None:
    worker.write({"ink.safetensors": tensors(_LORA), "other.safetensors": tensors(_LORA)})
    holder = os.open(worker.root, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    command = [sys.executable, "-m", "layerbuild", "add", "ink.safetensors", "--to", "worker"]
    with subprocess.Popen(command, cwd=worker.root, env=worker.environ, stdout=subprocess.DEVNULL) as process:
        while not _waits(process.pid):
            assert process.poll() is None, "it did not wait for another that writes"
        worker.write({"recipes/worker.yaml": _RECIPE.replace("[]", "[other]")})
        worker.write({"layers/models.yaml": "other: {kind: model, type: lora, source: 'file:other.safetensors'}\n"})
        os.close(holder)
    assert process.returncode == 0
    assert list(layers(worker)) == ["other", "ink"]
    assert (worker.root / "recipes/worker.yaml").read_text() == _RECIPE.replace("[]", "[other, ink]")


def _waits(process: int) -> bool:
    """Whether a process waits for a lock, by the kernel's list."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(str(process) in words for words in waiting)

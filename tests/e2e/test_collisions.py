"""Layers of one image that would destroy each other's files, and other ways to lose something without a word."""

from __future__ import annotations

import pytest

from fixtures.project import Project, safetensors

MODEL = "a: {kind: model, type: checkpoint, source: 'file:models/a.safetensors'}\n"


def prepare(project: Project, layers: str, names: str, recipe: str = "") -> None:
    project.write(
        {
            "models/a.safetensors": safetensors(1000),
            "layers/l.yaml": MODEL + layers,
            "recipes/x.yaml": f"base: scratch\nwebui: {{root: /sd}}\nlayers: [{names}]\ntags: [t]\n{recipe}",
        }
    )


@pytest.mark.parametrize("order", ["a, clash", "clash, a"])
@pytest.mark.parametrize(
    "file",
    [
        "/sd/models/Stable-diffusion/a.safetensors: {content: x}",
        "/sd/models: {content: x}",
        "/sd/models: {link: /tmp}",
        "/sd/cache.json: {content: '{}'}",
    ],
)
def test_a_file_does_not_replace_models_links_or_cache(project: Project, file: str, order: str) -> None:
    prepare(project, f"clash: {{kind: files, files: {{{file}}}}}\n", order)
    project.run("lock", check=False).failed(2, "layers/l.yaml:", file.partition(":")[0])
    assert not project.lockfile.exists()


def test_a_file_where_another_layer_needs_a_directory(project: Project) -> None:
    layers = "f1: {kind: files, files: {/q/x: {content: '1'}}}\nf2: {kind: files, files: {/q: {content: '2'}}}\n"
    prepare(project, layers, "f1, f2")
    project.run("lock", check=False).failed(2, "/q is a file of this layer", "/q/x lies below it")


def test_a_file_beside_them_is_fine(project: Project) -> None:
    prepare(project, "ok: {kind: files, files: {/sd/models/readme.txt: {content: x}}}\n", "a, ok")
    project.run("lock")


def test_two_revisions_of_one_repository(project: Project) -> None:
    def layer(name: str, digit: str, more: str = "") -> str:
        revision = digit * 40
        return (
            f"{name}: {{kind: huggingface, source: 'file:s{digit}', repository: o/n, revision: '{revision}'{more}}}\n"
        )

    project.write({"s1/config.json": "{}", "s2/config.json": "{ }"})
    prepare(project, layer("one", "1") + layer("two", "2"), "one, two")
    project.run("lock", check=False).failed(2, "another revision of the repository is called 'main'")
    prepare(project, layer("one", "1") + layer("two", "2", ", refs: [dev]"), "one, two")
    project.run("lock")


@pytest.mark.parametrize("root", ["/opt", "/opt/weights", "/opt/weights/sd"])
def test_shared_directories_are_nobodys_root(project: Project, root: str) -> None:
    project.write({"recipes/x.yaml": f"base: scratch\nwebui: {{root: {root}}}\n"})
    project.run("lock", check=False).failed(2, "recipes/x.yaml:2", "shared by every image")


def test_a_version_in_a_matrix_needs_quotes(project: Project) -> None:
    project.write({"recipes/x.yaml": "name: 'i-{{ v }}'\nmatrix:\n  v: [1.9, 1.10]\n"})
    project.run("lock", check=False).failed(2, "recipes/x.yaml:3", "1.10 is read as a number", "put it in quotes")
    project.write({"recipes/x.yaml": "name: 'i-{{ v }}'\nmatrix:\n  v: [1.9, '1.10', 3]\n"})
    project.run("lock")


def test_an_empty_recipe_is_a_mistake(project: Project) -> None:
    project.write({"recipes/x.yaml": ""})
    project.run("lock", check=False).failed(2, "recipes/x.yaml", "this file is empty")


def test_a_truncated_blob_of_a_layout_is_written_again(project: Project) -> None:
    prepare(project, "", "a")
    project.run("lock")
    project.run("push", "oci:out")
    blobs = project.root / "out" / "blobs" / "sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    largest.write_bytes(whole[:100])
    project.run("push", "oci:out")
    assert largest.read_bytes() == whole


def test_facts_that_are_missing_are_no_drift(project: Project) -> None:
    prepare(project, "", "a")
    project.run("lock")
    project.run("build")

    def forget(lock: dict[str, object]) -> None:
        lock["files"], lock["receipts"] = {}, {}

    project.edit_lock(forget)
    elsewhere = {"LAYERBUILD_STORE": str(project.root / "another-store")}
    project.run("lock", "--check", env=elsewhere)
    project.run("build", env=elsewhere)


def test_a_changed_file_names_every_layer_that_pins_it(project: Project) -> None:
    again = "b: {kind: model, type: checkpoint, source: 'file:models/a.safetensors', filename: b.safetensors}\n"
    prepare(project, again, "a, b")
    project.run("lock")
    project.write({"models/a.safetensors": safetensors(1000, seed=5)})
    project.run("build", check=False).failed(1, "has changed since it was locked", "--update a --update b")

"""The repository's own catalog and recipes as declarations. What the worker does is in test_worker.py."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from layerbuild import images, project
from layerbuild.images import ImageDeclaration, LayerUse
from layerbuild.schema import FilesLayer, FileSpec, HuggingFaceLayer, ModelLayer, WebuiLayer

REPOSITORY = Path(__file__).resolve().parent.parent
COMMIT = re.compile(r"[0-9a-f]{40}")


def expand(root: Path) -> dict[str, ImageDeclaration]:
    return {image.name: image for image in images.expand(project.load(root))}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LayerUse]:
    """Every layer of the catalog as a recipe would use it."""
    root = tmp_path_factory.mktemp("everything")
    names = list(project.load(REPOSITORY).layers)
    webuis = [name for name in names if name.startswith("webui-")]
    others = [name for name in names if name not in webuis]
    (root / "recipes").mkdir()
    recipe = {
        "name": "all-{{ release }}",
        "matrix": {"release": webuis},
        "layers": ["{{ release }}", *others],
    }
    (root / "recipes" / "all.yaml").write_text(yaml.safe_dump(recipe))
    return {use.name: use for image in expand(root).values() for use in image.uses}


def sources(use: LayerUse) -> Iterator[str]:
    layer = use.layer
    if isinstance(layer, FilesLayer):
        for spec in layer.files.values():
            source = spec if isinstance(spec, str) else spec.source
            if source is not None:
                yield source
    else:
        yield layer.source
        if isinstance(layer, WebuiLayer):
            yield from layer.repositories.values()
            yield from layer.extensions.values()


def test_every_layer_of_the_catalog_can_be_used(catalog: dict[str, LayerUse]) -> None:
    assert set(catalog) == set(project.load(REPOSITORY).layers)


def test_what_a_commit_can_pin_is_pinned_by_one(catalog: dict[str, LayerUse]) -> None:
    for name, use in catalog.items():
        for source in sources(use):
            if source.startswith("hf://"):
                assert COMMIT.fullmatch(source.partition("@")[2].partition("/")[0]), (name, source)
            elif source.startswith("git+https://"):
                assert COMMIT.fullmatch(source.rpartition("@")[2]), (name, source)
            elif source.startswith("https://raw.githubusercontent.com/"):
                assert COMMIT.fullmatch(source.split("/")[5]), (name, source)
            else:
                assert source.startswith("https://"), (name, source)


def test_no_two_models_of_the_catalog_lie_at_one_path(catalog: dict[str, LayerUse]) -> None:
    models = [use.layer for use in catalog.values() if isinstance(use.layer, ModelLayer)]
    places = [(m.type, m.directory, m.filename or m.source.rpartition("/")[2]) for m in models]
    assert len(set(places)) == len(places)


def test_digests_of_the_catalog_are_not_copied_from_one_entry_to_another(catalog: dict[str, LayerUse]) -> None:
    digests = [use.layer.sha256 for use in catalog.values() if isinstance(use.layer, ModelLayer) and use.layer.sha256]
    assert len(set(digests)) == len(digests) > 0


def test_stable_diffusion_15_is_the_one_of_the_issue(catalog: dict[str, LayerUse]) -> None:
    layer = catalog["sd15"].layer
    assert isinstance(layer, ModelLayer)
    assert layer.type == "checkpoint"
    assert layer.source == (
        "hf://stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
        "/v1-5-pruned-emaonly.safetensors"
    )
    assert layer.sha256 == "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa"
    assert layer.size == 4265146304
    assert layer.filename == "v1-5-pruned-emaonly.safetensors"


def test_clip_marks_what_the_webui_asks_for_in_vain(catalog: dict[str, LayerUse]) -> None:
    layer = catalog["clip-l14"].layer
    assert isinstance(layer, HuggingFaceLayer)
    assert layer.files is not None
    assert len(layer.files) == 5
    assert layer.absent == ["added_tokens.json"]


@pytest.mark.parametrize("release", ["1.6.1", "1.9.4", "1.10.1"])
def test_a_webui_has_the_checkouts_of_its_release(catalog: dict[str, LayerUse], release: str) -> None:
    layer = catalog[f"webui-{release}"].layer
    assert isinstance(layer, WebuiLayer)
    old = release == "1.6.1"
    assert set(layer.repositories) == {
        "stable-diffusion-stability-ai",
        "generative-models",
        "k-diffusion",
        "BLIP",
        "CodeFormer" if old else "stable-diffusion-webui-assets",
    }


def test_recipes_expand_to_the_images_they_promise() -> None:
    expanded = expand(REPOSITORY)
    assert {name: image.target.version for name, image in expanded.items()} == {
        "a1111-sd15-1.6.1": (1, 6, 1),
        "a1111-sd15-1.9.4": (1, 9, 4),
        "a1111-sd15-1.10.1": (1, 10, 1),
        "a1111-sdxl": (1, 10, 1),
        "a1111-on-your-base": (1, 9, 4),
    }
    assert all(image.recipe.config.env["HF_HUB_OFFLINE"] == "1" for image in expanded.values())


def test_the_documentation_names_every_layer_and_every_variable() -> None:
    text = (REPOSITORY / "docs" / "catalog.md").read_text()
    described = set(re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE))
    layers = project.load(REPOSITORY).layers
    variables = {name for layer in ("runpod-worker", "worker-settings") for name in layers[layer].raw["vars"]}
    assert described == set(layers) | variables


# --- the worker's settings -------------------------------------------------------------------------


def settings(root: Path, webui: dict[str, str] | None = None, **variables: str | int | float | bool) -> dict[str, str]:
    """The rendered files of `worker-settings`, by path."""
    recipe = {"name": "i", "layers": ["worker-settings"], "vars": variables, "webui": webui or {}}
    (root / "recipes").mkdir(parents=True)
    (root / "recipes" / "i.yaml").write_text(yaml.safe_dump(recipe))
    [use] = expand(root)["i"].uses
    assert isinstance(use.layer, FilesLayer)
    return {path: spec.content or "" for path, spec in use.layer.files.items() if isinstance(spec, FileSpec)}


def test_settings_are_what_the_webui_reads(tmp_path: Path) -> None:
    made = settings(tmp_path, {"data_dir": "/data"})
    assert set(made) == {"/data/config.json", "/data/ui-config.json", "/data/styles.csv"}
    assert json.loads(made["/data/config.json"]) == {
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "sd_checkpoints_limit": 1,
        "samples_format": "png",
        "grid_format": "png",
        "samples_save": False,
        "grid_save": False,
        "live_previews_enable": False,
        "memmon_poll_rate": 0,
    }
    page = json.loads(made["/data/ui-config.json"])
    assert len(page) == 8
    assert page["txt2img/Width/value"] == page["img2img/Height/value"] == 512
    assert list(csv.DictReader(io.StringIO(made["/data/styles.csv"]))) == []


def test_settings_with_every_variable_set(tmp_path: Path) -> None:
    made = settings(
        tmp_path,
        settings_checkpoint='sub/it\'s "x" <é>.safetensors',
        settings_vae="a\\b.pt",
        settings_clip_skip=2,
        settings_loaded="3",
        settings_format="webp",
        settings_save=True,
        settings_previews=True,
        settings_width="1024",
        settings_height=768,
        settings_steps=30,
        settings_cfg=6.5,
        settings_styles='sharp,"{prompt}, sharp, ""crisp""",blurry\nplain,,low quality\n',
    )
    config, page, styles = (
        made[f"/stable-diffusion-webui/{n}"] for n in ("config.json", "ui-config.json", "styles.csv")
    )
    values = json.loads(config)
    assert values["sd_model_checkpoint"] == 'sub/it\'s "x" <é>.safetensors'
    assert (values["sd_vae"], values["CLIP_stop_at_last_layers"], values["sd_checkpoints_limit"]) == ("a\\b.pt", 2, 3)
    assert values["samples_format"] == values["grid_format"] == "webp"
    assert values["samples_save"] is values["grid_save"] is values["live_previews_enable"] is True
    of_page = json.loads(page)
    assert (of_page["img2img/Width/value"], of_page["txt2img/Height/value"]) == (1024, 768)
    assert (of_page["txt2img/Sampling steps/value"], of_page["txt2img/CFG Scale/value"]) == (30, 6.5)
    assert list(csv.DictReader(io.StringIO(styles))) == [
        {"name": "sharp", "prompt": '{prompt}, sharp, "crisp"', "negative_prompt": "blurry"},
        {"name": "plain", "prompt": "", "negative_prompt": "low quality"},
    ]

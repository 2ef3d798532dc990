"""What lines of a Dockerfile become, without a network and without files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from layerbuild import images, project
from layerbuild.dockerfile.reading import instructions
from layerbuild.dockerfile.stage import Local
from layerbuild.dockerfile.stages import Reader
from layerbuild.dockerfile.translate import Translation
from layerbuild.errors import UsageError
from layerbuild.schema import Recipe

A1111 = "https://github.com/AUTOMATIC1111/stable-diffusion-webui"
CATALOG = project.load_catalog()
WEBUIS = {name: layer.raw["source"] for name, layer in CATALOG.items() if layer.raw["kind"] == "webui"}


def translated(text: str, **types: str) -> tuple[Any, Any, dict[int, str]]:
    """Recipe, layers, and the last verdict on each line."""
    reader = Reader()
    for instruction in instructions(text.encode(), "Dockerfile"):
        reader.read(instruction)
    reader.finish()
    found = Translation(
        stage=reader.last,
        name="x",
        context=".",
        files=lambda _: None,
        type_of=lambda source: types.get(source.rpartition("/")[2].partition(".")[0]),
        catalog=WEBUIS,
        taken=set(CATALOG),
        remarks=reader.remarks,
    )
    recipe = yaml.safe_load(found.recipe_text())
    Recipe.model_validate(recipe)
    verdicts = {remark.line: remark.verdict for remark in found.remarks}
    return recipe, yaml.safe_load(found.layers_text()) or {}, verdicts


@pytest.mark.parametrize(
    ("clone", "layer"),
    [
        (f"git clone -b v1.10.1 {A1111}", "webui-1.10.1"),
        (f"git clone {A1111}.git && cd stable-diffusion-webui && git reset --hard 82a973c0", "webui-1.10.1"),
        (f"git clone {A1111} w && git -C w checkout feee37d75f1b168768014e4634dcb156ee649c05", "webui-1.9.4"),
        (f"git clone {A1111} && cd stable-diffusion-webui && git checkout tags/v9", "webui"),
        ("git clone https://github.com/acme/stable-diffusion-webui -b v1.10.1", "webui"),
    ],
)
def test_a_release_is_the_catalogs(clone: str, layer: str) -> None:
    recipe, layers, verdicts = translated(f"FROM a/b\nRUN {clone}\n")
    assert recipe["layers"] == [layer] and (layer in layers) == (layer == "webui")
    assert verdicts[2] == "translated"


@pytest.mark.parametrize(
    ("image", "base"),
    [
        ("python:3.10", "docker.io/library/python:3.10"),
        ("acme/x@sha256:" + "a" * 64, "docker.io/acme/x@sha256:" + "a" * 64),
        ("localhost:5000/x", "localhost:5000/x"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        ("--platform=linux/amd64 ${B:-debian}:12", "docker.io/library/debian:12"),
        ("$UNKNOWN", "scratch"),
    ],
)
def test_bases(image: str, base: str) -> None:
    recipe, _, verdicts = translated(f"ARG X=1\nFROM {image}\n")
    assert recipe["base"] == base and ("left" in verdicts.values()) == (image == "$UNKNOWN")


def test_variables_of_the_base_stay_out() -> None:
    recipe, _, verdicts = translated('FROM a/b\nENV PATH=/x:$PATH A=1\nENV OLD form of it\nENV B="$A 2"\n')
    assert recipe["config"]["env"] == {"A": "1", "OLD": "form of it", "B": "1 2"}
    assert verdicts[2] == "translated" and verdicts[3] == "translated"


def test_files_are_followed() -> None:
    text = """
FROM a/b AS one
RUN wget https://x.example/a.safetensors https://x.example/b.safetensors -P /m/ && cp /m/a.safetensors /n.ckpt
FROM one AS two
RUN rm -f /m/b.safetensors && mkdir -p /w/models/Lora && mv /m/a.safetensors /w/models/Lora/
FROM scratch
COPY --from=two /w /webui
COPY --from=0 /m/b.safetensors /webui/models/VAE/c.safetensors
COPY --from=two /m /nothing
COPY --from=ghcr.io/a/b /x /y
"""
    recipe, layers, verdicts = translated(text)
    assert {name: (layer["type"], layer.get("filename")) for name, layer in layers.items()} == {
        "a": ("lora", None),
        "c": ("vae", "c.safetensors"),
    }
    assert recipe["webui"]["root"] == "/webui"
    assert verdicts[9] == verdicts[10] == "left" and verdicts[7] == verdicts[8] == "translated"


@pytest.mark.parametrize(
    ("commands", "path"),
    [
        ("wget -O /t/Lora/a.safetensors {} && mv /t/Lora /sd/models/", "/sd/models/Lora/a.safetensors"),
        ("wget -P /t {} && mv /t/a.safetensors /sd/models/Lora", "/sd/models/Lora/a.safetensors"),
        ("wget -P /t {} && mkdir -p /m && cp /t/a.safetensors /m && rm -rf /t/*", "/m/a.safetensors"),
        ("wget -P /t {} && mkdir -p /m $X && cp -r /t/. /m && rm -r /t", "/m/a.safetensors"),
        ("wget -P /t {} && mv /t/a.safetensors /m.safetensors", "/m.safetensors"),
        ("cd /w && wget -P /t -O a.safetensors {}", "/w/a.safetensors"),
        ("curl --referer https://x.example -o /t/a.safetensors {}", "/t/a.safetensors"),
        ("curl -w https://x.example -OJ {}", "/a.safetensors"),
    ],
)
def test_where_a_file_comes_to_lie(commands: str, path: str) -> None:
    reader = Reader()
    for instruction in instructions(f"FROM a\nRUN {commands}\n".format("https://x.example/a.safetensors").encode(), ""):
        reader.read(instruction)
    assert list(reader.last.things) == [path]
    assert {remark.verdict for remark in reader.remarks} <= {"translated", "unnecessary"}


def test_of_a_directory_copy_takes_what_is_in_it() -> None:
    text = f"""
FROM a/b AS one
RUN git clone -b v1.10.1 {A1111} /sd && wget -P /m https://x.example/a.safetensors
COPY conf /opt/conf/
COPY run.sh /opt/
FROM a/b
COPY --from=one /sd /webui/
COPY --from=one /m/ /webui/models/Lora/
COPY --from=one /m/a.safetensors /webui/models/VAE/
COPY --from=one /opt/conf/ /etc/conf/
COPY --from=one /opt/run.sh /bin/
"""
    reader = Reader()
    for instruction in instructions(text.encode(), ""):
        reader.read(instruction)
    things = reader.last.things
    models = {"/webui/models/Lora/a.safetensors", "/webui/models/VAE/a.safetensors"}
    assert set(things) == {"/webui", *models, "/etc/conf/conf", "/bin/run.sh"}
    conf = things["/etc/conf/conf"]
    assert isinstance(conf, Local) and conf.target == "/etc/conf"


@pytest.mark.parametrize(
    ("address", "flavor"), [("lllyasviel/stable-diffusion-webui-forge", "forge"), ("vladmandic/automatic", "sdnext")]
)
def test_another_webui_is_named_in_the_recipe_too(address: str, flavor: str, tmp_path: Path) -> None:
    recipe, layers, _ = translated(f"FROM a/b\nENV =x A=1\nRUN git clone https://github.com/{address} /sd\n")
    assert recipe["webui"] == {"root": "/sd", "flavor": flavor} and layers["webui"]["flavor"] == flavor
    for name, data in (("recipes", recipe), ("layers", layers)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text(yaml.safe_dump(data))
    assert len(images.expand(project.load(tmp_path))) == 1


def test_a_platform_is_kept() -> None:
    for flag, platform in (("linux/arm64", "linux/arm64"), ("$BUILDPLATFORM", None)):
        recipe, _, _ = translated(f"FROM --platform={flag} a/b AS x\nFROM x\n")
        assert recipe.get("platform") == platform


def test_what_only_the_base_knows_is_left() -> None:
    lines = ["WORKDIR $HOME/x", "USER $U", "EXPOSE 80 $P", "VOLUME /a $V", "LABEL a=$L b=c", "STOPSIGNAL $S"]
    recipe, _, verdicts = translated("\n".join(["FROM a/b", *lines, "VOLUME data"]))
    assert [verdicts[line] for line in range(2, 8)] == ["left"] * 6
    assert set(recipe["config"]) == {"volumes"}


def test_a_header_counts_where_no_place_tells() -> None:
    text = (
        "FROM a/b\nRUN curl -Lo /x/a.safetensors https://x.example/a.safetensors && curl -O https://x.example/b.bin\n"
    )
    _, layers, _ = translated(text, a="upscaler")
    assert layers["a"]["type"] == "upscaler"
    assert layers["x-files"]["files"] == {"/b.bin": {"source": "https://x.example/b.bin"}}


def test_packages_may_be_a_layer() -> None:
    reader = Reader()
    text = (
        b"FROM a/b\nRUN pip install x\nRUN python3 -m pip install -r y\nRUN uv pip install z\nRUN apt-get install w\n"
    )
    for instruction in instructions(text, "Dockerfile"):
        reader.read(instruction)
    assert ["kind python" in str(remark) for remark in reader.remarks[-4:]] == [True, True, True, False]


@pytest.mark.parametrize(
    "line",
    [
        *("RUN wget -i list.txt", "RUN curl https://x.example/a.pt | sh", "RUN wget -O- https://x.example/a.pt"),
        *("RUN wget https://x.example/$(date).pt", "RUN if x; then wget https://x.example/a.pt; fi", "RUN git pull"),
        *(
            "RUN git clone https://huggingface.co/a/b",
            "RUN git clone git://x",
            "RUN git clone",
            "RUN hf download a/b --local-dir /x",
        ),
        *("RUN wget https://huggingface.co/a/b", "RUN ./install.sh", "RUN python -m pip install x", "ONBUILD RUN x"),
        *("ADD a.tar.gz /opt/", "RUN wget --content-disposition https://civitai.com/api/download/models/1"),
        *("RUN curl -OJL https://x.example/download?id=1", "RUN aria2c https://civitai.com/api/download/models/1"),
        *("COPY <<E /f\nx\nE", "COPY a", "COPY $X /y", "COPY gone /y", "HEALTHCHECK NONE", "RUN git checkout x"),
        *("RUN git clone https://github.com/a/b /opt/b", "RUN wget 'https://x.example/a.pt?sig=x'", "MAINTAINER me"),
    ],
)
def test_what_is_left_is_said(line: str) -> None:
    recipe, layers, verdicts = translated(f"FROM a/b\n{line}\n")
    assert verdicts[2] == "left" and not recipe["layers"] and not layers


@pytest.mark.parametrize(
    "line",
    [
        *("RUN cd /w && python cache.py --use-cpu=all", "COPY builder/cache.py /w/", "RUN python launch.py --exit"),
        *("RUN huggingface-cli login --token x", "RUN git lfs install", 'SHELL ["/bin/bash", "-c"]'),
    ],
)
def test_what_is_not_needed_is_said(line: str) -> None:
    recipe, _, verdicts = translated(f"FROM a/b\n{line}\n")
    assert verdicts == {2: "unnecessary"} and not recipe["layers"]


def test_markup_is_never_rendered() -> None:
    text = "FROM {{ x }}\nENV A='{{ x }}'\nLABEL b='{% x'\nCMD ['{{']\nEXPOSE 80\nRUN wget -O '/{{ x }}' https://x.example/a\n"
    recipe, layers, verdicts = translated(text)
    assert recipe["base"] == "scratch" and recipe["config"] == {"ports": ["80/tcp"]} and not layers
    assert verdicts[1] == verdicts[6] == "left"


def test_what_grows_without_end_has_one() -> None:
    doubled = "ENV A=$A$A\n" * 64
    copied = "RUN cp -r /a /a/b\nRUN cp -r /a /a/c\n" * 30
    own = f"FROM x\nRUN wget -P /a https://x.example/a.pt\n{copied}"
    for text in (own, f"FROM x\nENV A=aaaaaaaa\n{doubled}", f"FROM x\nRUN A=aaaaaaaa; {'A=$A$A; ' * 64} wget $A\n"):
        with pytest.raises(UsageError, match="no usual Dockerfile"):
            translated(text)

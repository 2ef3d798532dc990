"""What is made from code says what the code says: every command, every key of the lock, the drawing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from typing import Any

import click
import pytest
import yaml

from layerbuild import locktext
from layerbuild.buckets import Buckets
from layerbuild.cli.main import group
from layerbuild.lockmodel import Lock, LockedBase, LockedImage, LockedIndex, LockedLayer
from layerbuild.model import Blob, Content, Directory, Facts, Pin, PinnedFile, Receipt
from test_docs import read, script

HEX64, HEX40 = "0" * 64, "0" * 40
DIGEST = f"sha256:{HEX64}"


# --- commands --------------------------------------------------------------------------------------


def every_command(inside: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(inside)
    for name in inside.list_commands(context):
        command = inside.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*words, name))


COMMANDS = dict(every_command(group, ("layerbuild",)))


def test_the_commands_say_what_their_help_says() -> None:
    assert script("make_commands").render() == read("docs/commands.md"), "run docs/make_commands.py"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_told_whole(words: tuple[str, ...]) -> None:
    section = re.split(r"^##+ ", read("docs/commands.md").partition(f"# {' '.join(words)}\n")[2], flags=re.MULTILINE)[0]
    command = COMMANDS[words]
    assert f"usage: {' '.join(words)}" in section
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert f"`{', '.join(parameter.opts)}" in section or parameter.opts[-1] in section, parameter.opts
    examples = re.findall(
        r"^ +(layerbuild .+?)(?:  .*)?$", (command.help or "").partition("Examples:")[2], re.MULTILINE
    )
    shown = re.findall(r"^(layerbuild .+?)(?: +# .*)?$", section, re.MULTILINE)
    assert [example.strip() for example in examples] == shown


def test_a_help_without_words_is_refused() -> None:
    module = script("make_commands")
    silent = click.Command("silent", params=[click.Option(["--mute"])], help="Says nothing.")
    with pytest.raises(ValueError, match="--mute"):
        list(module._section(silent, click.Context(silent, info_name="silent"), level=2))


# --- the lock --------------------------------------------------------------------------------------


def full_lock() -> Lock:
    """A lock with every key that a lock can have."""
    file = PinnedFile(path="a", content=Content(size=1, sha256=HEX64, git_blob=HEX40))
    pin = Pin(
        **{"source": "hf://a/b", "files": (file,), "revision": HEX40, "ref": "main", "tree": HEX40, "listing": HEX64},
        **{"absent": ("b",), "date": 1, "version": "1", "mirrors": ("x",), "headers": (("a", "b"),)},
        **{"blob": DIGEST, "offset": 1, "constraints": ("c",)},
    )
    facts = Facts(
        **{"size": 1, "git_blob": HEX40, "safetensors": True, "header_size": 1, "header_sha256": HEX64},
        **{"metadata": "{}", "addnet": HEX64, "architecture": "sd1", "pickle": "x"},
    )
    receipt = Receipt(key=HEX64, diff_id=DIGEST, size=1, blobs=(Blob(encoding="zstd:3:1", digest=DIGEST, size=1),))
    base = LockedBase(reference="a", digest=DIGEST, directories={"opt": Directory(path="opt", mode=1, uid=0, gid=0)})
    image = LockedImage(
        **{"platform": "linux/amd64", "settings": "0" * 16, "base": base, "layers": ("files/a@pending",)},
        **{"buckets": Buckets(threshold=1, bits=1), "manifest": DIGEST},
    )
    return Lock(
        layers={"a": LockedLayer(declaration=HEX64, pins={"a": pin})},
        files={HEX64: facts},
        receipts={HEX64: receipt},
        images={"a": image},
        indexes={"a": LockedIndex(platforms=("linux/amd64", "linux/arm64"), digest=DIGEST)},
        unlocked={"b": "why"},
    )


def tables() -> Mapping[str, dict[str, str]]:
    """Keys of each table of the lock's page, and what is said of their values."""
    found = re.findall(r"<!-- begin: (\w+) -->\n(.*?)<!-- end: \1 -->", read("docs/lock.md"), re.DOTALL)
    return {name: dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", rows, re.MULTILINE)) for name, rows in found}


def test_every_key_of_a_lock_is_told() -> None:
    data: dict[str, Any] = yaml.safe_load(locktext.dump(full_lock()))
    del data["version"]
    (layer,), (facts,), (receipt,), (image,), (index,) = (
        data[section].values() for section in ("layers", "files", "receipts", "images", "indexes")
    )
    (pin,) = layer["pins"].values()
    written = {
        **{"Lock": data, "LockedLayer": layer, "Pin": pin, "PinnedFile": pin["files"][0], "Facts": facts},
        **{"Receipt": receipt, "Blob": receipt["blobs"][0], "LockedImage": image, "LockedBase": image["base"]},
        **{"Buckets": image["buckets"], "LockedIndex": index},
    }
    words = {str: "text", int: "number", bool: "boolean", list: "list", dict: "mapping"}
    assert tables() == {
        name: {key: words[type(value)] for key, value in item.items()} for name, item in written.items()
    }


def test_the_tables_of_the_lock_are_those_of_its_values() -> None:
    page = read("docs/lock.md")
    assert script("make_reference").render(page) == page, "run docs/make_reference.py"


# --- the drawing -----------------------------------------------------------------------------------


def test_the_drawing_is_made_from_its_script() -> None:
    svg = script("make_drawing").draw()
    assert svg == read("docs/concepts.svg"), "run docs/make_drawing.py"


def test_the_drawing_can_be_read_by_everybody() -> None:
    root = ElementTree.fromstring(read("docs/concepts.svg"))
    named = {element.get("id"): element.text for element in root if element.get("id")}
    told = [named[name] for name in root.get("aria-labelledby", "").split()]
    assert root.get("role") == "img" and len(told) == 2 and all(told)
    texts = {element.text for element in root.iter() if element.tag.endswith("}text")}
    assert {"lockfile.yaml", "links of A", "weights: a checkpoint", "image B"} <= texts
    # In light and in dark, and with nothing from elsewhere.
    style = next(element.text or "" for element in root.iter() if element.tag.endswith("}style"))
    assert "prefers-color-scheme: dark" in style and "url(http" not in style
    colours = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split("@media")]
    for scheme in colours:
        for ground in ("ground", "box", "own", "shared"):
            assert contrast(scheme["ink"], scheme[ground]) >= 7, ground
            assert contrast(scheme["soft"], scheme[ground]) >= 4.5, ground


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2, 1.4.3."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    lighter, darker = sorted((light(one), light(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


# --- numbers ---------------------------------------------------------------------------------------


def test_what_is_quoted_was_measured() -> None:
    text, measured = " ".join(read("docs/comparison.md").split()), read("docs/performance.md")
    push = measured.partition("### Build and first push")[2].partition("###")[0]
    ratios = dict(re.findall(r"^\| (\w+) +\| +[\w-]+ \| ([\d.]+) \|", push, re.MULTILINE))
    for program, words in {"buildah": "took {} times", "layerbuild": "against {}", "oras": "needed {} times"}.items():
        assert words.format(ratios[program]) in text, program
    assert (
        f"| {float(ratios['buildah']):.1f} times what `curl` needs | {float(ratios['layerbuild']):.1f} times |"
        in read("README.md")
    )
    for program, version in re.findall(r"\b(buildah|podman|oras) (\d+\.\d+\.\d+)", text):
        assert re.search(rf"\| {program}\b[^|]*\| +{re.escape(version)} \|", measured), program


def test_the_cold_start_in_short_is_that_of_the_table() -> None:
    page = read("docs/coldstart.md")
    short = page.partition("In short")[2].partition("##")[0]
    table = page.partition("### Release 1.10.1")[2].partition("### Release 1.6.1")[0]
    # Two rows have the same name, of what is loaded and of the other checkpoint: the first is meant.
    found = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|", table, re.MULTILINE)
    rows = {name.strip(" *"): (before, after) for name, before, after in reversed(found)}
    assert f"hashes {rows['files hashed until the first image'][0]} files, 2.4 GiB" in read("README.md")
    for told, measured in {
        "files hashed": "files hashed until the first image",
        "read for that, besides loading": "bytes read for that",
        "files for which the Hub is asked": "files for which the Hub is asked",
        "waits, where there is no network": "waits between those retries, counted and not slept",
        "seconds here, with a fast disk, loading included": "until the first image",
    }.items():
        line = next(line for line in short.splitlines() if line.startswith(f"| {told} |"))
        _, _, before, after, _ = line.split("|")
        assert before.strip().startswith(rows[measured][0]) and after.strip() == rows[measured][1].split()[0], told

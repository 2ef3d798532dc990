"""The documentation is true: links lead somewhere, commands and options exist, examples load, output is real."""

from __future__ import annotations

import html
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import dask
import jinja2.runtime
import pytest
import yaml
import zstandard
from distributed.cli import dask_scheduler, dask_worker

from builders import images_of
from layerbuild import __version__
from layerbuild.cli.main import group
from layerbuild.registry.limits import KNOWN, Limits

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MADE_WITH = (1, 5, 7)
"""Version of zstd with which the pages' output was made."""
EXAMPLE = re.compile(r"<!-- example: file=(\S+) -->\n```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    """A script beside the documentation, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- links -----------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_relative_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page.name} links to {link}"


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) < 200


def test_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)\s#]+)", read("README.md")))
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} - {"README.md"} <= linked


# --- commands --------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """Every call of layerbuild in code blocks and in inline code, as words."""
    lines = [line for _, block in FENCE.findall(text) for line in block.splitlines()]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    found = [re.match(r"(?:\$ )?(?:[A-Z_]+=\S+(?: -d\))? )?layerbuild( .*|$)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def options(command: click.Command) -> dict[str, click.Parameter]:
    every = [*command.params, click.Option(["--help"], is_flag=True)]
    return {name: p for p in every for name in (*p.opts, *p.secondary_opts)}


@pages
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        inside: click.Command = group
        known = options(group)
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word.startswith("-"):
                assert word in known, f"{page.name}: layerbuild {' '.join(words)}"
                if isinstance(parameter := known[word], click.Option) and not parameter.is_flag:
                    assert rest, f"{page.name}: {word} needs a value"
                    rest.pop(0)
            elif isinstance(inside, click.Group):
                found = inside.get_command(click.Context(inside), word)
                assert found is not None, f"{page.name}: there is no command {word}"
                known, inside = options(found), found


def test_every_command_and_option_is_documented() -> None:
    everything = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert f"`layerbuild {name}" in read("README.md"), name
        inside = command.commands.values() if isinstance(command, click.Group) else ()
        for parameter in [p for one in (command, *inside) for p in one.params]:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in everything, f"{name} {parameter.opts}"


# --- examples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "docs/declarations.md"])
def test_examples_load_and_expand(name: str, tmp_path: Path) -> None:
    examples = dict(EXAMPLE.findall(read(name)))
    images = images_of(tmp_path, examples)
    assert {Path(image.document.file).name for image in images} == {
        Path(file).name for file in examples if file.startswith("recipes/")
    }


def test_pin_keys_are_as_described(tmp_path: Path) -> None:
    text = read("docs/declarations.md")
    images = images_of(tmp_path, dict(EXAMPLE.findall(text)))
    keys = {use.pin_key for image in images for use in image.uses if "[" in use.pin_key}
    assert keys
    assert all(f"`{key}`" in text for key in keys), keys


def test_tables_say_what_the_schema_says() -> None:
    page = read("docs/declarations.md")
    module = script("make_reference")
    assert module.render(page) == page, "run docs/make_reference.py"
    events = read("docs/events.md")
    assert module.render(events) == events and "| `skip` |" in events, "run docs/make_reference.py"
    models = ("ModelLayer", "HuggingFaceLayer", "WebuiLayer", "FilesLayer", "FileSpec", "Fetch")
    for model in (*models, "Recipe", "WebuiTarget", "ImageConfig", "OwnerSpec"):
        assert f"<!-- begin: {model} -->" in page


def test_what_registries_take_is_as_known() -> None:
    told = {}
    pattern = r"^\| [^|]+ \| (`.*`) \| ([^|]*)\| (yes|no) \| ([^|]*)\| ([^|]*)\|$"
    for hosts, largest, first, chunk, whole in re.findall(pattern, read("docs/pushing.md"), re.MULTILINE):
        sizes = [int(text.removesuffix(" MiB ")) << 20 if text.strip() else None for text in (largest, chunk, whole)]
        limits = Limits(streams=first == "no", largest=sizes[0], chunk=sizes[1], whole=sizes[2])
        told |= dict.fromkeys(re.findall(r"`([^`]+)`", hosts), limits)
    assert told == dict(KNOWN)


def test_the_cluster_is_one() -> None:
    text = read("docs/cluster.md")
    (example,) = [yaml.safe_load(block) for _, block in EXAMPLE.findall(text)]
    assert (example["apiVersion"], example["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    calls = []
    for part in ("worker", "scheduler"):
        pod = example["spec"][part]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes
        calls.append([str(argument) for argument in container["args"]])
    service, (container,) = example["spec"]["scheduler"]["service"], example["spec"]["scheduler"]["spec"]["containers"]
    assert service["selector"]["dask.org/cluster-name"] == example["metadata"]["name"]
    assert f"service/{example['metadata']['name']}-scheduler" in text
    assert {port["targetPort"] for port in service["ports"]} == {port["name"] for port in container["ports"]}
    # What Dask's own command line understands.
    calls += [
        shlex.split(line) for _, block in FENCE.findall(text) for line in block.splitlines() if line[:5] == "dask "
    ]
    known = {"worker": dask_worker.main, "scheduler": dask_scheduler.main}
    assert len(calls) == 4
    for program, what, *arguments in calls:
        assert program == "dask" and {word for word in arguments if word[:2] == "--"} <= set(options(known[what]))


def test_settings_of_dask_exist() -> None:
    text = read("docs/cluster.md")
    for name in re.findall(r"\bdistributed\.(?!dask)[a-z.-]+[a-z]", text):
        assert dask.config.get(name, "absent") != "absent", name
    for name in re.findall(r"\bDASK_(\w+)", text):
        if "__" in name:
            assert dask.config.get(name.lower().replace("__", "."), "absent") != "absent", name


# --- output ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `demo` makes its project."""
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(scope="module")
def demo(demo_at: Path) -> str:
    """What `layerbuild demo` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "layerbuild", "demo"],
        cwd=demo_at.parent,
        env={name: value for name, value in os.environ.items() if name != "CI"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(text: str) -> list[str]:
    """Lines without seconds, and without what another version of zstd changes: small sizes, digests of manifests."""
    if zstandard.ZSTD_VERSION != MADE_WITH:
        text = re.sub(r"sha256:[0-9a-f]{12,64}", "DIGEST", text)
        text = re.sub(r"[0-9.]+ (B|KiB)\b", "SIZE", text)
    text = re.sub(r"\bin [0-9.]+ s\b", "in TIME", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_tour_shows_what_the_demo_prints(demo: str) -> None:
    shown = "\n".join(plain(demo))
    blocks = [block for kind, block in FENCE.findall(read("README.md")) if kind == "console"]
    assert len(blocks) == 1
    for block in blocks:
        for part in re.split(r"\n(?=\$ )", block):
            assert "\n".join(plain(part)) in shown, part


@pytest.fixture(scope="module")
def after(demo: str, demo_at: Path) -> Callable[[str], str]:
    """Runs commands where the demo left off."""
    assert demo

    def run(command: str) -> str:
        words = [sys.executable, "-m", *shlex.split(command)]
        environ = {**os.environ, "LAYERBUILD_STORE": str(demo_at / ".store")}
        done = subprocess.run(words, cwd=demo_at, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_reading_shows_what_the_commands_print(after: Callable[[str], str]) -> None:
    blocks = "\n".join(block for kind, block in FENCE.findall(read("docs/reading.md")) if kind == "console")
    shown = re.split(r"(?:^|\n)\$ (.*)\n", blocks)[1:]
    told = dict(zip(shown[::2], shown[1::2], strict=True))
    assert {command.split()[1] for command in told} == {"plan", "ls", "show", "diff", "why"}
    for command, output in told.items():
        # Digests of what is compressed, and columns that are as wide as they are.
        wanted, found = (re.sub(r"\b[0-9a-f]{10,64}\b", "HEX", "\n".join(plain(t))) for t in (output, after(command)))
        assert found == wanted, command


def test_the_lock_is_a_real_one(demo: str, demo_at: Path) -> None:
    assert demo
    shown = next(block for kind, block in FENCE.findall(read("docs/lock.md")) if kind == "yaml")
    lines = set(plain((demo_at / "lockfile.yaml").read_text(encoding="utf-8")))
    assert not [line for line in plain(shown) if line not in lines]


def test_the_picture_shows_what_the_demo_prints(demo: str) -> None:
    module = script("make_picture")
    lines: dict[int, str] = {}
    texts = re.findall(r'<text [^>]*clip-path="url\(#demo-line-(\d+)\)">([^<]*)</text>', read("docs/demo.svg"))
    for number, text in texts:
        lines[int(number)] = lines.get(int(number), "") + html.unescape(text).replace("\xa0", " ")
    wanted = plain(demo[demo.index(module.FIRST_LINE) :])
    assert plain("\n".join(lines[number] for number in sorted(lines))) == wanted, "run docs/make_picture.py"


def test_the_picture_is_drawn_from_its_text() -> None:
    svg = script("make_picture").draw("\x1b[36m$ layerbuild plan\x1b[0m\ntotal  <1 KiB>\n")
    assert "layerbuild" in svg and "&lt;1" in svg
    assert "@font-face" not in svg and "\x1b" not in svg


def test_the_picture_of_the_report_is_small() -> None:
    data = (ROOT / "docs" / "report.png").read_bytes()
    module = script("make_report")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert data.startswith(b"\x89PNG") and len(data) < 200_000
    assert width / height == module.WIDTH / module.HEIGHT, "run docs/make_report.py"


def source() -> str:
    """The code of layerbuild, and what Jinja2 says of names, with adjacent string literals joined."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "builder").rglob("*.py")))
    text += inspect.getsource(jinja2.runtime)
    return re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)


def test_messages_are_real() -> None:
    code = source()
    text = read("docs/troubleshooting.md").partition("## In a container")[0]
    messages = re.findall(r"\*\*`(.+?)`\*\*", text)
    assert len(messages) > 30
    for message in messages:
        # What stands for a name, a number or a value differs; what lies between is the message.
        parts = re.split(
            r"\.\.\.|'[^']*'|\([^)]*\)|[\"/:,]|\d+\S*|\blinux\b|\bhf\b|\bfile\b|\blockfile\.yaml\b", message
        )
        longest = max((part.strip() for part in parts), key=len)
        assert longest in code, f"{message!r}: no message has {longest!r}"


# --- the rest --------------------------------------------------------------------------------------


def test_every_dependency_earns_its_line() -> None:
    project = read("pyproject.toml").partition("[project.scripts]")
    runtime = project[0].partition("dependencies = [")[2]
    extras = project[2].partition("dev = [")[2].partition("\n]")[0]
    names = re.findall(r'^\s*"([A-Za-z0-9-]+)', runtime + extras, re.MULTILINE)
    assert {"requests", "ruff"} <= set(names)
    page = read("docs/dependencies.md")
    lines = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    missing = [name for name in names if not any(name in cell.replace(",", " ").split() for cell in lines)]
    assert not missing


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {__version__}\n" in read("CHANGELOG.md")


def test_the_licence_is_whole() -> None:
    text = read("LICENSE")
    assert "Apache License" in text and "9. Accepting Warranty" in text and "APPENDIX: How to apply" in text

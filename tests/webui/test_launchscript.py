"""What a launch script clones, told by scripts in the shape of the real ones, and by hostile ones."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.errors import SourceError
from layerbuild.webui import pythonsource
from layerbuild.webui.launchscript import checkouts

A, B = "a" * 40, "b" * 40
CATALOG = Path(__file__).resolve().parents[2] / "layers" / "webui.yaml"

VARIABLES = {
    "stable-diffusion-webui-assets": "ASSETS",
    "stable-diffusion-stability-ai": "STABLE_DIFFUSION",
    "generative-models": "STABLE_DIFFUSION_XL",
    "k-diffusion": "K_DIFFUSION",
    "CodeFormer": "CODEFORMER",
    "BLIP": "BLIP",
}


def script(pins: dict[str, str]) -> str:
    """A launch script in the shape of 1.6 to 1.10 that clones `pins`: directory -> git source."""
    repos, hashes, clones = [], [], []
    for number, (directory, source) in enumerate(pins.items()):
        variable, quote = VARIABLES[directory], "'\""[number % 2]
        address, _, commit = source.removeprefix("git+").rpartition("@")
        repo, commit_hash = f"{variable.lower()}_repo", f"{variable.lower()}_commit_hash"
        repos.append(f"    {repo} = os.environ.get('{variable}_REPO', {quote}{address}{quote})")
        hashes.append(f"    {commit_hash} = os.environ.get('{variable}_COMMIT_HASH', {quote}{commit}{quote})")
        clones.append(f"    git_clone({repo}, repo_dir('{directory}'), \"{variable}\", {commit_hash})")
    return "\n".join(
        [
            "import os, sys",
            "from modules.paths_internal import script_path",
            "",
            "dir_repos = 'repositories'",
            "git = os.environ.get('GIT', 'git')",
            "",
            "def repo_dir(name):",
            "    return os.path.join(script_path, dir_repos, name)",
            "",
            "def git_clone(url, dir, name, commithash=None):",
            "    if os.path.exists(dir):",
            "        return",
            '    run(f\'"{git}" clone --config core.filemode=false "{url}" "{dir}"\', live=True)',
            "",
            "def prepare_environment():",
            "    torch_index_url = os.environ.get('TORCH_INDEX_URL', 'https://download.example/whl')",
            "    torch_command = os.environ.get('TORCH_COMMAND', f'pip install torch --url {torch_index_url}')",
            *(*repos, "", *hashes, "", "    if not is_installed('clip'):", "        run_pip('install clip')", ""),
            "    os.makedirs(os.path.join(script_path, dir_repos), exist_ok=True)",
            *("", *clones, "", "    startup_timer.record('clone repositores')", ""),
        ]
    )


@pytest.mark.parametrize("release", ["1.10.1", "1.9.4", "1.6.1"])
def test_releases_name_what_the_catalog_names(release: str) -> None:
    pins = yaml.safe_load(CATALOG.read_text())[f"webui-{release}"]["repositories"]
    assert checkouts(script(pins), "launch_utils.py", what="it") == pins


def test_the_oldest_shape() -> None:
    """launch.py before 1.2: the same calls, at the top of what runs; misspelt variables and all."""
    text = f"""
dir_repos = "repositories"
def repo_dir(name):
    return os.path.join(dir_repos, name)
def prepare_enviroment():
    taming_repo = os.environ.get('TAMING_REANSFORMERS_REPO', "https://github.com/CompVis/taming-transformers.git")
    taming_commit_hash = os.environ.get('TAMING_TRANSFORMERS_COMMIT_HASH', "{A}")
    git_clone(taming_repo, repo_dir('taming-transformers'), "Taming Transformers", taming_commit_hash)
if __name__ == "__main__":
    prepare_enviroment()
"""
    wanted = {"taming-transformers": f"git+https://github.com/CompVis/taming-transformers.git@{A}"}
    assert checkouts(text, "launch.py", what="it") == wanted


@pytest.mark.parametrize(
    "lines",
    [
        'git_clone("https://h/x", repo_dir("x"), "X", "{A}")',
        'git_clone(url="https://h/x", dir=repo_dir("x"), name="X", commithash="{A}")',
        'u: str = "https://h/x"\nc = d = "{A}"\nlaunch.git_clone(u, launch.repo_dir("x"), "X", d)',
        'u = os.getenv("U", "https://h/x")\nn = "x"\ngit_clone(u, repo_dir(n), "X", environ.get("C", "{A}"))',
        (
            'c = "{A}"\nif a:\n  u = "https://h/x"\nelse:\n  u = "https://h/x"\n'
            'try:\n  git_clone(u, repo_dir("x"), "X", c)\nexcept E: pass'
        ),
        'c = "{B}"\ndef f():\n  c = "{A}"\n  git_clone("https://h/x", repo_dir("x"), "X", c)',
        'c = "{A}"\ndef f():\n  def g():\n    git_clone("https://h/x", repo_dir("x"), "X", c)\n  g()',
        (
            'for i in range(2):\n  git_clone("https://h/x", repo_dir("x"), "X", "{A}")\n'
            'git_clone("https://h/x", repo_dir("x"), "X", "{A}")'
        ),
    ],
)
def test_ways_to_say_it(lines: str) -> None:
    text = lines.replace("{A}", A).replace("{B}", B)
    assert checkouts(text, "s.py", what="it") == {"x": f"git+https://h/x@{A}"}


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ('git_clone(u, repo_dir("x"), "X", "{A}")', "address"),
        ('git_clone(f"https://{h}/x", repo_dir("x"), "X", "{A}")', "address"),
        ('git_clone("https://h/" + x, repo_dir("x"), "X", "{A}")', "address"),
        ('git_clone("file:///etc", repo_dir("x"), "X", "{A}")', "address"),
        ('git_clone("https://me:pw@h/x", repo_dir("x"), "X", "{A}")', "address"),
        ('u = u\ngit_clone(u, repo_dir("x"), "X", "{A}")', "address"),
        ('u = v\nv = u\ngit_clone(u, repo_dir("x"), "X", "{A}")', "address"),
        ('u = "https://h/x"\nu += "y"\ngit_clone(u, repo_dir("x"), "X", "{A}")', "address"),
        ('u, v = "https://h/x", 1\ngit_clone(u, repo_dir("x"), "X", "{A}")', "address"),
        ('u = settings.get("U", "https://h/x")\ngit_clone(u, repo_dir("x"), "X", "{A}")', "address"),
        ('u = os.environ.get("U")\ngit_clone(u, repo_dir("x"), "X", "{A}")', "address"),
        ('git_clone(*a, repo_dir("x"), "X", "{A}")', "place"),
        ('git_clone("https://h/x", repo_dir("x"), "X")', "commit"),
        ('git_clone("https://h/x", repo_dir("x"), "X", None)', "commit"),
        ('git_clone("https://h/x", repo_dir("x"), "X", "main")', "commit"),
        ('c = "{A}"\nif w:\n  c = "{B}"\ngit_clone("https://h/x", repo_dir("x"), "X", c)', "commit"),
        ('git_clone("https://h/x", "/etc", "X", "{A}")', "place"),
        ('git_clone("https://h/x", repo_dir("../x"), "X", "{A}")', "directory"),
        ('git_clone("https://h/x", repo_dir("a/b"), "X", "{A}")', "directory"),
        ('git_clone("https://h/x", repo_dir(""), "X", "{A}")', "directory"),
        (
            'git_clone("https://h/x", repo_dir("x"), "", "{A}")\ngit_clone("https://h/y", repo_dir("x"), "", "{A}")',
            "second time",
        ),
        ("\n".join(f'git_clone("https://h/x", repo_dir("x{i}"), "", "{{A}}")' for i in range(65)), "more than 64"),
    ],
)
def test_what_is_not_plain_is_an_error_with_its_line(lines: str, cause: str) -> None:
    text = "import os\n" + lines.replace("{A}", A).replace("{B}", B)
    with pytest.raises(SourceError) as caught:
        checkouts(text, "s.py", what="it")
    last = max(i for i, line in enumerate(text.splitlines(), 1) if "git_clone" in line)
    assert f"s.py of it, line {last}:" in caught.value.message
    assert cause in (caught.value.cause or "") and "repositories" in (caught.value.hint or "")


def test_what_is_known_need_not_be_readable() -> None:
    text = f'git_clone(u, repo_dir("x"), "X")\ngit_clone("https://h/y", repo_dir("y"), "", "{A}")'
    assert checkouts(text, "s.py", what="it", known=["x"]) == {"y": f"git+https://h/y@{A}"}
    assert checkouts(text, "s.py", what="it", known=["x", "y"]) == {}


def test_a_script_that_clones_nothing() -> None:
    assert checkouts("def git_clone(url, dir): pass\nfrom modules import launch_utils\n", "s.py", what="it") is None


HOSTILE = {
    "deep": "x = " + "(" * 5000,
    "minus": "x = " + "-" * 200_000 + "1",
    "attributes": "x = a" + ".a" * 300_000,
    "calls": "x = f" + "()" * 300_000,
    "sum": "x = " + "a+" * 300_000 + "a",
    "branches": "if a: pass\n" + "elif a: pass\n" * 50_000,
    "long": "#" * pythonsource.MAX_SIZE,
    "no Python": "def",
    "zero": "x = '\0'",
    "surrogate": "x = '\ud800'",
    "unfinished": "x = '''",
    "indented": "if x:\n        a\n    b\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_scripts_are_told(text: str) -> None:
    """Some of these kill a CPython that is given them."""
    with pytest.raises(SourceError, match="cannot be parsed"):
        checkouts(text, "s.py", what="it")


def test_long_and_flat_is_no_attack() -> None:
    text = "x = [" + "'a', " * 40_000 + "]\n" + "f(a.b)\n" * 20_000
    assert isinstance(pythonsource.parse(text), ast.Module)


_VALUES = ["u", "c", "x", f'"{A}"', '"https://h/x"', 'repo_dir("x")', "None", "os.environ.get(x, c)", "*u", "u + c"]
_LINES = [
    *(f"{name} = {value}" for name in "ucx" for value in _VALUES if value != "*u"),
    *(f"git_clone({a}, {b}, {c})" for a in _VALUES for b in _VALUES[:6] for c in _VALUES[2:5]),
    *(f'git_clone({a}, repo_dir({b}), "", {c})' for a in _VALUES for b in _VALUES[:6] for c in _VALUES[:5]),
    *("def f():", "    c = u", "if x: u = c", "class K: u = x"),
]


@given(st.lists(st.sampled_from(_LINES), max_size=12))
def test_any_script_gives_sources_or_an_error(lines: list[str]) -> None:
    try:
        found = checkouts("\n".join(lines), "s.py", what="it")
    except SourceError as error:
        assert error.hint
        return
    assert not found or found == {"x": f"git+https://h/x@{A}"}

"""Layers of Python packages from an index that the test fills: what is locked, made, shared, built and refused."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest

from e2e.readers import layout_manifests, members, sha256
from fixtures.gitrepo import GitRepo
from fixtures.project import Project
from fixtures.pythonbase import PYTHON
from fixtures.web import Answer, Asked
from fixtures.wheels import Index, contents, with_record, zipped
from layerbuild.model import LARGE
from layerbuild.store import Store

_SITE = f"opt/venv/lib/python{PYTHON}/site-packages"


def declare(project: Project, index: Index, *requirements: str, more: str = "") -> Project:
    """A project of one image, uncompressed enough to be looked into."""
    project.write(
        {
            "layers/all.yaml": f"""
packages:
  kind: python
  requirements: {list(requirements)}
  indexes: ['{index.url}']
  python: '{PYTHON}'
  {more}
""",
            "recipes/worker.yaml": "base: scratch\nlayers: [packages]\ntags: [v1]\ncompression: gzip\n",
        }
    )
    return project


def pins(project: Project, layer: str = "packages") -> Any:
    """The layer's pins in the lock."""
    return project.lock["layers"][layer]["pins"]


def keys(project: Project) -> dict[str, str]:
    """Label -> key of each layer of the image."""
    lines = project.lock["images"]["worker"]["layers"]
    return dict(line.removeprefix("python/").split("@") for line in lines)


def tree(project: Project, name: str = "worker:v1") -> dict[str, bytes]:
    """Every file of the image."""
    layout = project.root / "out"
    project.run("push", f"oci:{layout}")
    found = members(layout, layout_manifests(layout)[name])
    return {path: data for path, (member, data) in found.items() if member.isfile()}


def heavy(seed: int) -> bytes:
    """Bytes that no compressor makes fewer."""
    import random

    return random.Random(seed).randbytes(LARGE)


def test_each_wheel_has_a_pin_and_nothing_is_asked_twice(packages: Project, index: Index) -> None:
    index.wheel("alpha", requires=("beta>=1",))
    index.wheel("beta", "1.5")
    declare(packages, index, "alpha").run("lock")
    text = packages.lockfile.read_text()
    assert {role: pin["files"][0]["path"] for role, pin in pins(packages).items()} == {
        "wheel alpha": "alpha-1.0-py3-none-any.whl",
        "wheel beta": "beta-1.5-py3-none-any.whl",
    }
    asked = len(index.web.requests)
    index.wheel("beta", "1.6")
    # The declaration is the same: nobody is asked, and a newer version moves nothing.
    packages.run("lock", "--offline")
    packages.run("lock")
    assert packages.lockfile.read_text() == text and len(index.web.requests) == asked
    packages.run("lock", "--check")
    packages.run("lock", "--update", "packages")
    assert pins(packages)["wheel beta"]["files"][0]["path"] == "beta-1.6-py3-none-any.whl"


def test_a_new_version_of_a_small_package_moves_no_heavy_one(packages: Project, index: Index) -> None:
    index.wheel("alpha")
    index.wheel("torchlike", files={"torchlike/lib.so": heavy(1), "torchlike/__init__.py": b""})
    declare(packages, index, "alpha", "torchlike").run("lock")
    packages.run("build")
    before = keys(packages)
    assert list(before) == ["packages", "packages/torchlike"]
    index.wheel("alpha", "2.0")
    packages.run("lock", "--update", "packages")
    after = keys(packages)
    assert after["packages/torchlike"] == before["packages/torchlike"] and after["packages"] != before["packages"]
    # The heavy wheel is not even looked at: its receipt is known.
    sent = index.web.sent["/files/torchlike-1.0-py3-none-any.whl"]
    packages.run("build", env={"LAYERBUILD_STORE": str(packages.root / "elsewhere")})
    assert index.web.sent["/files/torchlike-1.0-py3-none-any.whl"] == sent


def test_the_same_wheel_is_the_same_layer_in_every_image(packages: Project, index: Index) -> None:
    index.wheel("torchlike", files={"torchlike/lib.so": heavy(1)})
    index.wheel("alpha")
    declare(packages, index, "torchlike").write(
        {
            "layers/other.yaml": f"""
others: {{kind: python, requirements: [torchlike, alpha], indexes: ['{index.url}'], python: '{PYTHON}'}}
""",
            "recipes/other.yaml": "base: scratch\nlayers: [others]\ncompression: gzip\n",
        }
    )
    packages.run("lock")
    lines = [image["layers"] for image in packages.lock["images"].values()]
    assert {line.split("@")[1] for line in lines[0]} & {line.split("@")[1] for line in lines[1]}


def test_scripts_data_and_modes_are_where_an_installer_puts_them(packages: Project, index: Index) -> None:
    files = {
        "alpha/__init__.py": b"x = 1\n",
        "alpha/old.py": b"print 1\n",
        "alpha/__pycache__/__init__.cpython-38.pyc": b"void",
        "alpha-1.0.data/scripts/run-alpha": b"#!python -u\nprint(1)\n",
        "alpha-1.0.data/scripts/run.sh": b"#!/bin/sh\n",
        "alpha-1.0.data/data/share/alpha.txt": b"data",
        "alpha-1.0.data/platlib/alpha_more.py": b"y = 2\n",
        "alpha-1.0.data/headers/alpha.h": b"int x;",
        "alpha-1.0.dist-info/entry_points.txt": b"[console_scripts]\nalpha = alpha.cli:main.run [extra]\n",
    }
    index.wheel("alpha", files=files)
    declare(packages, index, "alpha").run("lock")
    found = tree(packages)
    assert found["opt/venv/bin/run-alpha"] == b"#!/opt/venv/bin/python -u\nprint(1)\n"
    assert b"from alpha.cli import main\n" in found["opt/venv/bin/alpha"]
    assert b"sys.exit(main.run())" in found["opt/venv/bin/alpha"]
    assert found["opt/venv/share/alpha.txt"] == b"data"
    assert found[f"opt/venv/include/site/python{PYTHON}/alpha/alpha.h"] == b"int x;"
    assert f"{_SITE}/alpha/__pycache__/__init__.cpython-38.pyc" not in found
    tag = f"cpython-{PYTHON.replace('.', '')}"
    compiled = {path.rpartition("/")[2] for path in found if path.endswith(".pyc")}
    # What is no valid Python has none.
    assert compiled == {f"__init__.{tag}.pyc", f"alpha_more.{tag}.pyc"}
    record = found[f"{_SITE}/alpha-1.0.dist-info/RECORD"].decode()
    assert "../../../bin/alpha,sha256=" in record and "../../../share/alpha.txt,sha256=" in record
    assert "pycache" not in record


def test_two_packages_that_write_one_path_are_both_named(packages: Project, index: Index) -> None:
    index.wheel("alpha", files={"tests/__init__.py": b"a = 1\n"})
    index.wheel("beta", files={"tests/__init__.py": b"b = 1\n"})
    declare(packages, index, "alpha", "beta").run("lock")
    packages.run("build", check=False).failed(1, f"/{_SITE}/tests/__init__.py", "alpha", "beta")


def test_heavy_packages_are_held_against_each_other_too(packages: Project, index: Index) -> None:
    same = {"shared/__init__.py": b""}
    index.wheel("alpha", files={**same, "tests/a.py": b"a = 1\n"})
    index.wheel("torchlike", files={**same, "tests/a.py": b"b = 1\n", "torchlike/lib.so": heavy(2)})
    declare(packages, index, "alpha", "torchlike").run("lock")
    # Also where each of the two layers is known by itself.
    for _ in range(2):
        packages.run("build", check=False).failed(1, f"/{_SITE}/tests/a.py", "alpha", "torchlike")


def test_namespaces_may_be_written_by_all_that_share_them(packages: Project, index: Index) -> None:
    for name in ("nvidia_a", "nvidia_b"):
        index.wheel(name, files={"nvidia/__init__.py": b"", f"nvidia/{name}.py": b"x = 1\n"})
    declare(packages, index, "nvidia-a", "nvidia-b").run("lock")
    assert {f"{_SITE}/nvidia/__init__.py", f"{_SITE}/nvidia/nvidia_b.py"} <= set(tree(packages))


def test_a_wheel_that_is_not_what_its_record_says_is_refused(packages: Project, index: Index) -> None:
    files = with_record(contents("alpha"), "alpha") | {"alpha/__init__.py": b"name = 'alphA'\n"}
    index.add("alpha-1.0-py3-none-any.whl", zipped(files))
    declare(packages, index, "alpha", more="bytecode: none").run("lock")
    packages.run("build", check=False).failed(1, "alpha/__init__.py", "RECORD", "alpha-1.0-py3-none-any.whl")
    assert "receipts: {}" in packages.lockfile.read_text()


def test_a_path_that_leaves_the_environment_is_refused(packages: Project, index: Index) -> None:
    index.wheel("alpha", files={"../../evil.py": b"x = 1\n"})
    declare(packages, index, "alpha").run("lock")
    packages.run("build", check=False).failed(1, "no layer may hold", "evil.py")


def test_requirements_are_those_of_the_images_webui(packages: Project, index: Index) -> None:
    index.wheel("alpha")
    index.wheel("alpha", "2.0")
    index.wheel("beta")
    repository = GitRepo(packages.root / "webui.git")
    listed = b"# pinned\nalpha==1.0  # old\n\n"
    commit = repository.commit({"webui.py": b"", "requirements_versions.txt": listed})
    recipe = "base: scratch\nlayers: [packages, webui]\n"
    declare(packages, index).write(
        {
            "layers/all.yaml": f"""
packages:
  kind: python
  requirements: {{from: webui}}
  packages: [beta]
  indexes: ['{index.url}']
  python: '{PYTHON}'
webui: {{kind: webui, source: "git+file:webui.git@{commit}"}}
""",
            "recipes/worker.yaml": recipe,
        }
    )
    packages.run("lock")
    assert sorted(pins(packages, "packages[webui=webui]")) == ["wheel alpha", "wheel beta"]
    found = pins(packages, "packages[webui=webui]")["wheel alpha"]["files"][0]["path"]
    assert found == "alpha-1.0-py3-none-any.whl"
    # Another commit is another declaration.
    newer = repository.commit({"webui.py": b"", "requirements_versions.txt": b"alpha==2.0\n"})
    text = (packages.root / "layers/all.yaml").read_text()
    packages.write({"layers/all.yaml": text.replace(commit, newer)})
    packages.run("lock", "--check", check=False).failed(3, "packages")
    packages.run("lock")
    found = pins(packages, "packages[webui=webui]")["wheel alpha"]["files"][0]["path"]
    assert found == "alpha-2.0-py3-none-any.whl"
    strange = repository.commit({"requirements_versions.txt": b"--index-url https://evil.example\n"})
    packages.write({"layers/all.yaml": text.replace(commit, strange)})
    packages.run("lock", check=False).failed(1, "requirements_versions.txt", "no requirement")
    packages.write({"layers/all.yaml": text.replace(commit, "main")})
    packages.run("lock", check=False).failed(2, "branch")
    packages.write({"recipes/worker.yaml": "base: scratch\nlayers: [packages]\n"})
    packages.run("lock", check=False).failed(2, "no webui layer")


_SETUP = b"""
from setuptools import setup
setup(name="sourceonly", version="1.0", py_modules=["sourceonly"])
"""


@pytest.mark.xdist_group("packages")
def test_source_is_built_where_it_is_named_and_once(packages: Project, index: Index) -> None:
    source = zipped({"x-1/setup.py": _SETUP, "x-1/sourceonly.py": b"x = 1\n"})
    address = index.web.route("/archive/0123abc.zip", source)
    declare(packages, index, f"sourceonly @ {address}")
    packages.run("lock", check=False).failed(1, "sourceonly", "build")
    declare(packages, index, f"sourceonly @ {address}", more="build: [sourceonly]").run("lock")
    pin = pins(packages)["wheel sourceonly"]
    assert pin["source"] == f"built+{address}"
    assert [file["path"] for file in pin["files"]] == ["sourceonly-1.0-py3-none-any.whl", "0123abc.zip"]
    asked = len(index.web.asked("/archive/0123abc.zip"))
    with contextlib.closing(Store(packages.store)) as store:
        assert (pin["files"][0]["sha256"],) in store.query("SELECT sha256 FROM built")
    found = tree(packages)
    assert found[f"{_SITE}/sourceonly.py"] == b"x = 1\n"
    # It was kept when it was built.
    assert len(index.web.asked("/archive/0123abc.zip")) == asked
    # Whoever has the lock and a destination with the layer needs neither wheel nor source.
    packages.run("push", f"oci:{packages.root / 'out'}", env={"LAYERBUILD_STORE": str(packages.root / "empty")})
    assert len(index.web.asked("/archive/0123abc.zip")) == asked
    # Elsewhere it is built again, and is the same.
    elsewhere = {"LAYERBUILD_STORE": str(packages.root / "elsewhere")}
    packages.run("build", "--check", env=elsewhere)
    # What came out different would not be taken for it.
    pinned = packages.lockfile.read_text()
    digest = pin["files"][0]["sha256"]
    packages.write({"lockfile.yaml": pinned.replace(digest, "f" * 64)})
    packages.run("lock", "--offline")
    third = {"LAYERBUILD_STORE": str(packages.root / "third")}
    packages.run("build", env=third, check=False).failed(1, "sourceonly-1.0", "not reproducible", digest)


def test_a_lock_that_was_edited_by_hand_is_no_traceback(packages: Project, index: Index) -> None:
    index.wheel("alpha")
    declare(packages, index, "alpha").run("lock")
    good = packages.lockfile.read_text()
    for change in (
        lambda pin: pin.pop("files"),
        lambda pin: pin["files"][0].update(path="alpha.zip"),
        lambda pin: pin["files"][0].pop("size"),
    ):
        packages.write({"lockfile.yaml": good})
        packages.edit_lock(lambda lock, change=change: change(lock["layers"]["packages"]["pins"]["wheel alpha"]))
        packages.run("build", check=False).failed(2, "no wheel for alpha", "--update packages")
    packages.write({"lockfile.yaml": good})
    packages.edit_lock(lambda lock: lock["layers"]["packages"].update(pins={}))
    packages.run("build", check=False).failed(3, "other pins")


def test_an_index_of_plain_pages_is_asked_for_sizes(packages: Project, index: Index) -> None:
    data = index.wheel("alpha")
    name = "alpha-1.0-py3-none-any.whl"
    page = f'<!DOCTYPE html><a href="/files/{name}#sha256={sha256(data)}">{name}</a>'
    index.web.route("/simple/alpha/", Answer(body=page.encode(), headers={"Content-Type": "text/html"}))
    declare(packages, index, "alpha").run("lock")
    pin = pins(packages)["wheel alpha"]
    assert pin["files"] == [{"path": "alpha-1.0-py3-none-any.whl", "size": len(data), "sha256": sha256(data)}]
    assert "#" not in pin["source"]


def test_what_cannot_be_chosen_is_said_in_uvs_words(packages: Project, index: Index) -> None:
    index.wheel("alpha", requires=("beta>=2",))
    index.wheel("beta")
    declare(packages, index, "alpha")
    packages.run("lock", check=False).failed(1, "packages cannot be locked", "beta", "loosen the requirements")


def test_two_environments_in_one_place_are_refused(packages: Project, index: Index) -> None:
    index.wheel("alpha")
    declare(packages, index, "alpha")
    text = (packages.root / "layers/all.yaml").read_text()
    packages.write({"layers/more.yaml": text.replace("packages:", "others:", 1)})
    packages.write({"recipes/worker.yaml": "base: scratch\nlayers: [packages, others]\n"})
    packages.run("lock", check=False).failed(2, "/opt/venv/pyvenv.cfg", "others")


def test_the_recipe_may_say_which_python(packages: Project, index: Index) -> None:
    index.wheel("alpha")
    declare(packages, index, "alpha")
    text = (packages.root / "layers/all.yaml").read_text().replace(f"  python: '{PYTHON}'\n", "")
    packages.write({"layers/all.yaml": text})
    packages.run("lock", check=False).failed(2, "which Python")
    recipe = (packages.root / "recipes/worker.yaml").read_text()
    packages.write({"recipes/worker.yaml": f"{recipe}python: '{PYTHON}'\n"})
    packages.run("lock")
    assert list(packages.lock["layers"]) == [f"packages[python={PYTHON}]"]
    packages.write({"layers/all.yaml": text.replace("  kind: python", "  kind: python\n  python: '3.9'")})
    packages.run("lock", check=False).failed(2, "3.9", PYTHON)


def test_who_has_no_such_python_is_told_so(packages: Project, index: Index) -> None:
    index.wheel("alpha")
    declare(packages, index, "alpha")
    text = (packages.root / "layers/all.yaml").read_text().replace(PYTHON, "3.8")
    packages.write({"layers/all.yaml": text})
    nobody = {"LAYERBUILD_PYTHON_3_8": "/nowhere/python3.8"}
    assert "no Python 3.8" in packages.run("lock", env=nobody).out
    packages.run("build", env=nobody, check=False).failed(1, "no Python 3.8", "bytecode: none")


def test_logins_for_an_index_stay_out_of_lock_and_messages(packages: Project, index: Index) -> None:
    index.wheel("alpha")
    inner = index.web.answer

    def guarded(asked: Asked) -> Answer:
        if asked.headers.get("authorization") is None:
            return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return inner(asked)

    index.web.answer = guarded  # type: ignore[method-assign]
    declare(packages, index, "alpha")
    packages.run("lock", check=False).failed(1, "netrc")
    (packages.root / "netrc").write_text("machine 127.0.0.1 login me password s3cr3t-word\n")
    (packages.root / "netrc").chmod(0o600)
    login = {"NETRC": str(packages.root / "netrc")}
    packages.run("lock", env=login)
    built = packages.run("build", env=login)
    assert not re.search("s3cr3t|me:", packages.lockfile.read_text() + built.out + built.err)

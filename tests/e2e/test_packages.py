"""The wheel and the sdist that a release would publish."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from e2e.readers import call

pytestmark = pytest.mark.xdist_group("packages")

_REPOSITORY = Path(__file__).parents[2]
_CATALOG = sorted(p.relative_to(_REPOSITORY / "layers") for p in (_REPOSITORY / "layers").rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from an sdist, which is built from the working tree."""
    directory = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", str(directory), str(_REPOSITORY))
    return directory


def test_wheel_holds_the_package_and_the_catalog(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"layerbuild/catalog/{path}" for path in _CATALOG} <= set(names)
    modules = [path for kind in ("py", "j2", "js", "css") for path in (_REPOSITORY / "builder").rglob(f"*.{kind}")]
    assert {p.relative_to(_REPOSITORY / "builder").as_posix() for p in modules} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"layerbuild"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_sdist_holds_what_a_build_and_the_tests_need(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"layers/{path}" for path in _CATALOG} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "tests/conftest.py"} <= names
    assert not any("__pycache__" in name or name.startswith((".peers", ".git/", "demo/")) for name in names)


def test_installed_wheel_finds_its_catalog_and_works(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    home = tmp_path / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", str(home))
    python = home / "bin/python"
    call(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel))
    # The dependencies of this environment; a path file, as that of an editable install, has no effect there.
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": sysconfig.get_path("purelib")}
    script = "from layerbuild import project; print(project.__file__, project.catalog_directory())"
    done = subprocess.run([python, "-c", script], env=environ, cwd=tmp_path, capture_output=True, check=True)
    module, catalog = (Path(text) for text in done.stdout.decode().split())
    assert home in module.parents and catalog == module.parent / "catalog"
    assert sorted(p.relative_to(catalog) for p in catalog.rglob("*") if p.is_file()) == _CATALOG
    # A layer of the catalog is used by its name.
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/r.yaml").write_text("name: w\nwebui: {root: /webui}\nlayers: [nothing-of-that-name]\n")
    run = [home / "bin/layerbuild", "lock"]
    failed = subprocess.run(run, env=environ, cwd=tmp_path, capture_output=True, check=False)
    assert failed.returncode == 2 and b"nothing-of-that-name" in failed.stderr
    done = subprocess.run(
        [home / "bin/layerbuild", "demo", "d"], env=environ, cwd=tmp_path, capture_output=True, check=True
    )
    assert b"What was shared" in done.stdout

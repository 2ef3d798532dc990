"""What is found in a wheel, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest

from builders import sha256
from fixtures.wheels import contents, record_line, wheel, with_record, zipped
from layerbuild.errors import SourceError
from layerbuild.wheels import inspection

_NAME = "alpha-1.0-py3-none-any.whl"


def _inspect(files: Mapping[str, bytes], name: str = _NAME) -> inspection.Wheel:
    return inspection.inspect(io.BytesIO(zipped(files)), name)


def test_what_is_found_survives_its_document() -> None:
    files = {
        "alpha/__init__.py": b"x",
        "alpha-1.0.data/scripts/run": b"#!python\n",
        "alpha-1.0.data/scripts/b": b"\x7fELF",
    }
    found = inspection.inspect(io.BytesIO(wheel("alpha", files=files, modes={"alpha/__init__.py": 0o100755})), _NAME)
    assert found.files["alpha/__init__.py"] == inspection.WheelFile(sha256=sha256(b"x"), size=1, executable=True)
    assert found.scripts == {"alpha-1.0.data/scripts/run": b"#!python\n"}
    assert "alpha-1.0.dist-info/RECORD" not in found.files
    assert inspection.from_document(found.document()) == found


def test_files_that_record_does_not_name_are_hashed_as_they_are() -> None:
    files = with_record(contents("alpha"), "alpha") | {"extra.py": b"y"}
    assert _inspect(files).files["extra.py"].sha256 == sha256(b"y")
    record = files["alpha-1.0.dist-info/RECORD"] + b"other.py,md5=abc,1\n"
    found = _inspect(files | {"other.py": b"z", "alpha-1.0.dist-info/RECORD": record})
    assert found.files["other.py"].sha256 == sha256(b"z")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha-1.0.dist-info/WHEEL": b"Wheel-Version: 2.0\n"}, "version of the wheel format"),
        ({"alpha-1.0.data/nowhere/x": b""}, "belongs nowhere"),
        ({"alpha-1.0.dist-info/entry_points.txt": b"[console_scripts]\n../x = a:b\n"}, "entry points"),
        ({"alpha-1.0.dist-info/entry_points.txt": b"[console_scripts]\nx = a:b; import os\n"}, "entry points"),
        ({"alpha-1.0.dist-info/entry_points.txt": b"no section"}, "entry points"),
        ({"beta-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n"}, "no wheel"),
        ({"alpha-1.0.dist-info/RECORD": b"\xff"}, "RECORD"),
        ({"alpha-1.0.dist-info/RECORD": b"alpha/__init__.py,sha256=abc,3\n"}, "RECORD"),
        ({"alpha-1.0.dist-info/RECORD": record_line("gone.py", b"x").encode()}, "lacks 'gone.py'"),
        ({"alpha-1.0.dist-info/RECORD": record_line("alpha/__init__.py", b"x").encode()}, "RECORD says"),
        (
            {"alpha-1.0.dist-info/RECORD": (record_line("a", b"x") + record_line("a", b"y")).encode()},
            "cannot be read",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(change: Mapping[str, bytes], words: str) -> None:
    files = with_record(contents("alpha"), "alpha") | change
    with pytest.raises(SourceError) as error:
        _inspect(files)
    assert words in error.value.brief


@pytest.mark.parametrize(
    "name", ["beta-1.0-py3-none-any.whl", "alpha.whl", "alpha-1.0.zip", "a/b-1.0-py3-none-any.whl"]
)
def test_a_wheel_is_what_its_name_says(name: str) -> None:
    with pytest.raises(SourceError):
        _inspect(with_record(contents("alpha"), "alpha"), name)


def test_names_are_compared_as_indexes_write_them() -> None:
    files = with_record(contents("Alpha.Beta"), "Alpha.Beta")
    assert _inspect(files, "alpha_beta-1.0-py3-none-any.whl").stem == "Alpha.Beta-1.0"

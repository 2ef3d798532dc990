"""Scripts, RECORD, and which of several wheels is taken."""

from __future__ import annotations

import csv
import io

import pytest

from builders import sha256
from fixtures.wheels import wheel
from layerbuild.wheels import inspection, layout, record, scripts, tags


def _installed(**more: object) -> dict[str, layout.Installed]:
    files = {"alpha/a,b.py": b"", 'alpha/"q".py': b""}
    found = inspection.inspect(io.BytesIO(wheel("alpha", files=files)), "alpha-1.0-py3-none-any.whl")
    return {file.path: file for file in layout.installed(found, prefix="/opt/venv", python="3.10")}


def test_record_names_every_file_and_itself() -> None:
    found = _installed()
    site = "lib/python3.10/site-packages/"
    data = found[f"{site}alpha-1.0.dist-info/RECORD"].data or b""
    rows = list(csv.reader(io.StringIO(data.decode())))
    assert {f"{site}{row[0]}" for row in rows} == set(found)
    assert ["alpha-1.0.dist-info/RECORD", "", ""] in rows
    again = record.parse(data, what="x")
    assert again["alpha/a,b.py"] == record.Recorded(sha256=sha256(b""), size=0)


def test_a_long_interpreter_goes_by_way_of_the_shell() -> None:
    assert scripts.shebang("/opt/venv/bin/python") == "#!/opt/venv/bin/python"
    long = f"/opt/{'x' * 130}/bin/python"
    assert scripts.shebang(long).startswith(f"#!/bin/sh\n'''exec' '{long}'")
    assert scripts.rewritten(b"#!pythonw\nx", "/p") == b"#!/p\nx"
    assert scripts.rewritten(b"#!/usr/bin/perl\n", "/p") == b"#!/usr/bin/perl\n"


_PLATFORM = "manylinux_2_17_x86_64.manylinux2014_x86_64"


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (f"a-1-cp310-cp310-{_PLATFORM}.whl", [f"a-1-cp36-abi3-{_PLATFORM}.whl", "a-1-py3-none-any.whl"]),
        (f"a-1-cp39-abi3-{_PLATFORM}.whl", [f"a-1-cp36-abi3-{_PLATFORM}.whl", f"a-1-py3-none-{_PLATFORM}.whl"]),
        (f"a-1-py3-none-{_PLATFORM}.whl", ["a-1-cp310-none-any.whl", "a-1-py3-none-any.whl"]),
        ("a-1-cp310-none-any.whl", ["a-1-py310-none-any.whl", "a-1-py3-none-any.whl"]),
        ("a-1-py310-none-any.whl", ["a-1-py2.py3-none-any.whl", "a-1-py39-none-any.whl"]),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", [f"a-1-cp310-cp310-{_PLATFORM}.whl"]),
        ("a-1-2b-py3-none-any.whl", ["a-1-1-py3-none-any.whl", "a-1-py3-none-any.whl"]),
    ],
)
def test_the_most_special_wheel_is_taken(wanted: str, others: list[str]) -> None:
    assert tags.best([*others, wanted], "3.10") == wanted
    assert tags.best([wanted, *others], "3.10") == wanted

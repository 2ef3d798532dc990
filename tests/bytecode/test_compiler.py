"""The `.pyc` of a source: the same bytes wherever and whenever it is made, and what Python can load."""

from __future__ import annotations

import hashlib
import itertools
import json
import marshal
import os
import random
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path

import pytest

from layerbuild.bytecode import Compiler
from layerbuild.bytecode.interpreter import Interpreter, look_at
from layerbuild.errors import CompileError
from layerbuild.pyc import cached_path

STANDARD = Path(os.__file__).parent
SOURCES = [(path.read_bytes(), f"/lib/{path.name}") for path in sorted(STANDARD.glob("*.py"))]

SAMPLE = b"""
import a, b.c
from d import *
NAMES = ("one", "two words", 3, 4.5, 6j, b"7", None, ..., True, ("one", 8 << 90))

class Thing(a.Base):
    "Something."
    size: int = 1

    def method(self, *args, key="one", **rest):
        def inner():
            return self.size + len(args)
        return [inner() for x in args if x in {"one", "two words", 3, None}], lambda y: y in ("one", "z")
"""


@pytest.fixture(scope="module")
def own() -> Interpreter:
    found = look_at(sys.executable)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def compiler(own: Interpreter) -> Iterator[Compiler]:
    with Compiler(own) as made:
        yield made


def code_of(pyc: bytes) -> types.CodeType:
    code = marshal.loads(pyc[16:])
    assert isinstance(code, types.CodeType)
    return code


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def test_order_and_number_of_processes_do_not_matter(own: Interpreter) -> None:
    shuffled = random.Random(7).sample(SOURCES, len(SOURCES))
    made = []
    for processes, sources in ((2, SOURCES), (1, shuffled)):
        with Compiler(own, processes=processes) as compiler:
            results = [result.data for result in compiler.compile_all(sources)]
        made.append(dict(zip((path for _, path in sources), results, strict=True)))
    assert made[0] == made[1]
    assert len(made[0]) > 100


def test_bytes_are_frozen(own: Interpreter, compiler: Compiler) -> None:
    """Bytes that change need another `pyc.REVISION`: it is in the key of every layer that holds some."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "bytecode.json").read_text())
    data = compiler.compile(SAMPLE, "/opt/a.py").data or b""
    assert hashlib.sha256(data).hexdigest() == golden[own.tag]


def test_code_is_what_the_compiler_makes(compiler: Compiler) -> None:
    for (source, path), made in zip(SOURCES, compiler.compile_all(SOURCES), strict=True):
        assert made.data is not None
        assert code_of(made.data) == compile(source, path, "exec", dont_inherit=True, optimize=0)


def test_head_says_that_nobody_looks_at_the_source(compiler: Compiler) -> None:
    source, path = SOURCES[0]
    data = compiler.compile(source, path).data or b""
    assert data[:4] == MAGIC_NUMBER
    assert data[4:8] == b"\1\0\0\0"
    assert data[8:16] == source_hash(source)


def test_every_path_in_it_is_the_images(compiler: Compiler) -> None:
    data = compiler.compile(b"def f():\n return lambda: 0\n", "/opt/venv/a.py").data or b""
    assert {code.co_filename for code in codes(code_of(data))} == {"/opt/venv/a.py"}


def test_sets_and_long_and_odd_constants(compiler: Compiler) -> None:
    text = "x" * 300
    items = ", ".join([repr(text), "'a b'", "'\u00e9'", "'\U0001f600'", "1 << 70", "-1", "2.5", "-0.0", "3j", "b'q'"])
    source = (
        f"a = ({items}, ..., None, True, ())\nb = 'x' in {{'x', None, 'y', ({items})}}\nc = 'a b', 'a b'\n"
        "d = '\\ud800'\ne = 0.0\nf = 1\ng = 1.0\n"
    )
    source += f"h = ({', '.join(str(n) for n in range(300))})\n"
    made = compiler.compile(source.encode(), "/a.py").data or b""
    ours: dict[str, object] = {}
    exec(code_of(made), ours)
    theirs: dict[str, object] = {}
    exec(source, theirs)
    names = "abcdefgh"
    assert [repr(ours[name]) for name in names] == [repr(theirs[name]) for name in names]


def test_members_of_a_set_stand_in_one_order(own: Interpreter) -> None:
    source = b"x in {None, 'b', 'a', 3, (2, 'c'), b'd', 1.5, Ellipsis}\n"
    results = set()
    for _ in range(8):
        # Each process has a hash seed of its own, and another place for None.
        with Compiler(own, processes=1) as compiler:
            results.add(compiler.compile(source, "/a.py").data)
    assert len(results) == 1


def test_python_imports_it(own: Interpreter, compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    source = tmp_path / "sub" / "m.py"
    cached = tmp_path / cached_path("sub/m.py", own.tag)
    cached.parent.mkdir()
    cached.write_bytes(compiler.compile(b"print('compiled')\n", str(source)).data or b"")
    # Nobody looks whether the source is still that one.
    source.write_bytes(b"print('source')\n")
    told = subprocess.run(
        [own.path, "-c", "import m"], env={"PYTHONPATH": str(tmp_path / "sub")}, capture_output=True, check=True
    )
    assert told.stdout == b"compiled\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"def\n", "SyntaxError"),
        (b"print 'python 2'\n", "SyntaxError"),
        (b"# coding: no-such\n", "SyntaxError"),
        (b"a = '\xff'\n", "SyntaxError"),
        (b"if 1:\na\n", "IndentationError"),
    ],
)
def test_what_is_no_source_of_this_version(compiler: Compiler, source: bytes, reason: str) -> None:
    made = compiler.compile(source, "/a.py")
    assert made.data is None
    assert made.reason == reason


def test_a_null_byte_is_no_source(compiler: Compiler) -> None:
    assert compiler.compile(b"a = 1\0\n", "/a.py").data is None


@pytest.mark.parametrize(
    "deep",
    [b"(" * 10_000, b"-" * 200_000 + b"1\n", b"x" + b".a" * 200_000 + b"\n", b"[" * 150 + b"]" * 150],
    ids=["parentheses", "signs", "attributes", "lists"],
)
def test_deep_nesting_does_not_end_it(compiler: Compiler, deep: bytes) -> None:
    try:
        compiler.compile(deep, "/deep.py")
    except CompileError as error:
        assert "/deep.py" in error.message  # either is right, by the version
    assert compiler.compile(b"a = 1\n", "/a.py").data


def test_time_is_limited(own: Interpreter) -> None:
    long = b"".join(b"x = f(a, [b, c], {d: e})\n" for _ in range(200_000))
    with Compiler(own, processes=1, seconds=1) as compiler:
        with pytest.raises(CompileError) as caught:
            compiler.compile(long, "/long.py")
        assert caught.value.cause == "it takes too much time"
        assert compiler.compile(b"a = 1\n", "/a.py").data


def test_memory_is_limited(own: Interpreter) -> None:
    large = b"x = [" + b"1, 2, [a, b, c],\n" * 300_000 + b"]\n"
    with Compiler(own, processes=1, memory=128 * 1024**2) as compiler:
        with pytest.raises(CompileError) as caught:
            compiler.compile(large, "/large.py")
        assert caught.value.cause == "it takes too much memory"
        assert compiler.compile(b"a = 1\n", "/a.py").data


def test_an_interpreter_that_ends_is_started_again(own: Interpreter) -> None:
    with Compiler(own, processes=1) as compiler:
        assert compiler.compile(b"a = 1\n", "/a.py").data
        children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        running = list(itertools.chain.from_iterable(c.read_text().split() for c in children))
        mine = [p for p in running if b"compiles sources" in Path(f"/proc/{p}/cmdline").read_bytes()]
        os.kill(int(mine[-1]), 9)
        with pytest.raises(CompileError):
            compiler.compile(b"a = 1\n", "/a.py")
        assert compiler.compile(b"a = 1\n", "/a.py").data


def test_a_source_may_be_too_long(compiler: Compiler) -> None:
    with pytest.raises(CompileError, match=r"/a\.py"):
        compiler.compile(b"#" * (16 * 1024**2 + 1), "/a.py")

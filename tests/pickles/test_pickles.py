"""Files that pickle loads: real forms pass, whatever else is in them is said."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.pickles import (
    MAGIC,
    calling,
    named,
    short,
    state_dict,
    text,
    torch_legacy,
    torch_zip,
)
from layerbuild.pickles import fault, scanner
from layerbuild.pickles.archive import MAX_PICKLE
from layerbuild.pickles.walk import MAX_OPERATIONS

_STORAGES = {"0": bytes(16), "1": bytes(16)}


def _fault(data: bytes, *, lenient: bool = False) -> str | None:
    return fault(io.BytesIO(data), len(data), lenient=lenient)


@pytest.mark.parametrize(
    "data",
    [
        torch_zip(state_dict(), _STORAGES),
        torch_zip(state_dict(2000), _STORAGES, prefix="sd-v1-4"),
        torch_legacy(state_dict()),
        torch_legacy(state_dict(2000), storages=bytes(MAX_PICKLE)),
        pickle.dumps(collections.OrderedDict(a=[1, 2.0, "x", None, {"y": (1,)}]), protocol=2),
        *(pickle.dumps({"a": collections.OrderedDict(b={1})}, protocol=p) for p in range(6)),
        pickle.dumps(1) + pickle.dumps("two"),
    ],
)
def test_what_torch_writes_is_taken(data: bytes) -> None:
    assert _fault(data) is None


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _stack_global(before: bytes) -> bytes:
    return b"\x80\x04" + before + b"\x93" + b"(" + short("id") + b"tR."


_SYSTEM = short("os") + short("system")
_GOOD = short("collections") + short("OrderedDict")
_HARMFUL = {
    "os.system": (calling("os", "system"), "os.system"),
    "posix.system": (calling("posix", "system"), "posix.system"),
    "eval": (calling("builtins", "eval", "1"), "builtins.eval"),
    "eval of Python 2": (calling("__builtin__", "eval", "1"), "__builtin__.eval"),
    "protocol 0": (b"cos\nsystem\n(S'id'\ntR.", "os.system"),
    "INST": (b"(S'id'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'id'\no.", "os.system"),
    "NEWOBJ": (b"\x80\x02csubprocess\nPopen\n(X\x02\0\0\0id\x85t\x81.", "subprocess.Popen"),
    "unknown to everybody": (calling("acme.tools", "start"), "acme.tools.start"),
    "a known module's other name": (calling("torch", "load"), "torch.load"),
    "dotted name": (_stack_global(short("collections") + short("OrderedDict.__init__")), "OrderedDict.__init__"),
    "nested in a dict": (pickle.dumps({"a": [(_Calls(eval, "1"),)]}), "builtins.eval"),
    "nested pickle": (pickle.dumps(_Calls(pickle.loads, calling("os", "system"))), "_pickle.loads"),
    "through getattr": (pickle.dumps(_Calls(getattr, "", "join")), "builtins.getattr"),
    "STACK_GLOBAL": (_stack_global(_SYSTEM), "os.system"),
    "STACK_GLOBAL of memos": (_stack_global(short("os") + b"\x94" + short("system") + b"\x9400h\0h\x01"), "os.system"),
    "what was put there is taken away": (_stack_global(_SYSTEM + _GOOD + b"00"), "while it runs"),
    "a memo is written twice": (
        _stack_global(
            b"".join(short(word) + b"q" + bytes([i % 2]) for i, word in enumerate(("collections", "OrderedDict", "os")))
            + short("system")
            + b"q\x010000h\0h\x01"
        ),
        "os.system",
    ),
    "a memo of something else": (_stack_global(short("os") + b"K\x01q\x000h\0"), "while it runs"),
    "a memo that is not there": (_stack_global(b"h\x05h\x06"), "while it runs"),
    "the registry of extensions": (b"\x80\x02\x82\x01.", "registry of extensions"),
    "it breaks after the call": (calling("os", "system")[:-1] + b"\xff", "cannot be read to its end"),
    "a text that some cannot read": (b"S'\xc3\xa9'\n0" + calling("os", "system"), "cannot be read to its end"),
    "it never ends": (calling("os", "system")[:-1], ""),
}


@pytest.mark.parametrize("form", ["plain", "zip", "legacy", "second"])
@pytest.mark.parametrize("name", _HARMFUL)
@pytest.mark.parametrize("lenient", [False, True])
def test_what_would_run_is_found(name: str, form: str, lenient: bool) -> None:
    data, words = _HARMFUL[name]
    forms = {
        "plain": data,
        "zip": torch_zip(data),
        "legacy": torch_legacy(data),
        "second": pickle.dumps({"a": 1}, protocol=2) + data,
    }
    found = _fault(forms[form], lenient=lenient)
    assert found is not None and words in found, found


def test_memo_does_not_reach_from_one_pickle_into_the_next() -> None:
    first = b"\x80\x04" + short("collections") + b"\x94" + short("OrderedDict") + b"\x94\x86."
    second = b"\x80\x04" + short("os") + b"\x94" + short("system") + b"\x9400h\0h\x01\x93" + short("id") + b"\x85R."
    found = _fault(first + second)
    assert found is not None and "os.system" in found


def test_each_of_the_older_form_s_pickles_counts() -> None:
    parts = [pickle.dumps(part, protocol=2) for part in (MAGIC, 1001, {}, {"a": 1}, ["0"])]
    assert _fault(b"".join(parts) + b"raw") is None
    for place in range(1, 5):
        evil = [*parts[:place], calling("os", "system"), *parts[place + 1 :]]
        assert "os.system" in (_fault(b"".join(evil) + b"raw") or "")
    # The first one is the number itself, and nothing that gives it.
    evil = [calling("builtins", "eval", str(MAGIC)), *parts[1:]]
    assert "builtins.eval" in (_fault(b"".join(evil)) or "")
    assert "3 of 5" in (_fault(b"".join(parts[:3])) or "")


@pytest.mark.parametrize(
    "data",
    [
        b"7z\xbc\xaf\x27\x1c" + bytes(100),
        b"<!DOCTYPE html><html></html>",
        b"",
        b"\x7fELF" + bytes(90),
        b"\xff" * 600,
        b"l" + bytes(99),
    ],
    ids=["7z", "page", "empty", "program", "noise", "harmless beginning"],
)
def test_what_is_no_pickle_is_only_taken_as_bin(data: bytes) -> None:
    assert _fault(data) is not None
    assert _fault(data, lenient=True) is None


def test_tar_is_refused_even_if_it_is_a_pickle_too() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = 10
        archive.addfile(info, io.BytesIO(bytes(10)))
    assert "tar archive" in (_fault(stream.getvalue(), lenient=True) or "")
    # A tar's first bytes are a name, which may be a whole pickle.
    info = tarfile.TarInfo("K\x01.")
    assert "tar archive" in (_fault(info.tobuf() + bytes(1024)) or "")


def _zip(members: list[tuple[str, bytes]], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


_OK = ("a/data.pkl", state_dict())


class TestZips:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (_zip([_OK, ("a/code/__torch__.py", b"")]), "code/__torch__.py"),
            (_zip([_OK, ("a/constants.pkl", b"")]), "constants.pkl"),
            (_zip([_OK, ("a/../../x", b"")]), "a/../../x"),
            (_zip([_OK, ("A/DATA.PKL", calling("os", "system"))]), "DATA.PKL"),
            (_zip([_OK, ("b/version", b"")]), "two directories"),
            (_zip([("a/version", b"3")]), "no data.pkl"),
            (_zip([]), None),
            (torch_zip(state_dict(), compress=True), "compressed"),
            (b"GIF89a" + _zip([_OK]), None),
            (_zip([_OK]) + b"x", "does not end as one"),
            (_zip([_OK])[:-5], "does not end as one"),
            (_zip([_OK])[:-1] + b"\1x", "does not end as one"),
        ],
    )
    def test_forms_that_torch_does_not_write(self, data: bytes, words: str | None) -> None:
        found = _fault(data)
        assert found is not None and (words is None or words in found), found

    def _edited(self, field: int, value: bytes, *, signature: bytes = b"PK\x01\x02", data: bytes = b"") -> bytes:
        whole = bytearray(data or _zip([_OK]))
        start = whole.index(signature) + field
        whole[start : start + len(value)] = value
        return bytes(whole)

    def test_directory_and_files_must_agree(self) -> None:
        assert _fault(self._edited(0, b"PK\x01\x02")) is None
        # A wrong checksum changes nothing: what lies there is what was looked at.
        assert _fault(self._edited(16, b"\1\2\3\4")) is None
        for field, value in (
            (8, b"\1\0"),  # encrypted
            (10, b"\x08\0"),  # deflated
            (20, b"\xff\xff\xff\x7f"),  # compressed size
            (42, b"\1\0\0\0"),  # place
        ):
            assert _fault(self._edited(field, value)) is not None, field
        both = struct.pack("<II", 2**31 - 1, 2**31 - 1)
        assert "beyond its end" in (_fault(self._edited(20, both)) or "")
        assert _fault(self._edited(30, b"b/data.pkl", signature=b"PK\x03\x04")) is not None
        assert _fault(self._edited(8, b"\x08\0", signature=b"PK\x03\x04")) is not None
        # Directory size and place, as the end of the archive tells them.
        for field in (12, 16):
            for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"):
                assert _fault(self._edited(field, value, signature=b"PK\x05\x06")) is not None

    def test_a_second_archive_behind_the_first(self) -> None:
        assert _fault(_zip([_OK]) + _zip([("a/data.pkl", calling("os", "system"))])) is not None

    def test_a_row_of_equal_names(self) -> None:
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = _zip([_OK, ("a/data.pkl", calling("os", "system"))])
        assert "two files of one name" in (_fault(data) or "")

    def test_zip64(self) -> None:
        """As torch writes it: a locator whatever the size is."""
        plain = _zip([_OK])
        end = plain.rindex(b"PK\x05\x06")
        count, length, start = struct.unpack("<2xHII", plain[end + 8 : end + 20])
        record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        assert _fault(plain[:end] + record + locator + plain[end:]) is None
        tail = bytearray(plain[end:])
        tail[16:20] = b"\xff\xff\xff\xff"
        assert _fault(plain[:end] + record + locator + bytes(tail)) is None
        for wrong in (start + 1, 2**62):
            record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, wrong)
            assert _fault(plain[:end] + record + locator + bytes(tail)) is not None


class _Huge(io.RawIOBase):
    """A file of 2^40 bytes that counts what is read of it."""

    def __init__(self, head: bytes, tail: bytes) -> None:
        self.head, self.tail, self.place, self.seen = head, tail, 0, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset if whence == 0 else 2**40 + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int = -1) -> bytes:
        assert 0 <= size <= 2**24
        self.seen += size
        start, self.place = self.place, min(self.place + size, 2**40)
        data = self.head[start : start + size] if start < len(self.head) else b""
        end = 2**40 - len(self.tail)
        return data or (self.tail[start - end : start - end + size] if start >= end else bytes(size))


class TestBounds:
    def test_terabyte_of_tensors_costs_nothing(self) -> None:
        file = _Huge(torch_legacy(state_dict()), b"")
        assert fault(file, 2**40, lenient=False) is None  # type: ignore[arg-type]
        assert file.seen < 2 * MAX_PICKLE

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"\x80\x02" + b"N0" * (MAX_OPERATIONS // 2) + b"N.", "operations"),
            (b"\x80\x04B" + (MAX_PICKLE + 1).to_bytes(4, "little") + bytes(MAX_PICKLE + 1) + b".", "to its end"),
            (b"\x80\x04\x8e" + (2**60).to_bytes(8, "little"), "to its end"),
            (b"\x80\x02I" + b"1" * 100_000 + b"\n.", "to its end"),
            (b"K\1." * 65, "64 pickles"),
            (torch_zip(b"\x80\x02" + text("x" * (MAX_PICKLE + 1)) + b"."), "too many to look at"),
        ],
        ids=["operations", "bytes", "declared", "digits", "pickles", "member"],
    )
    def test_too_much_is_refused(self, data: bytes, words: str) -> None:
        assert words in (_fault(data) or "")

    def test_what_lies_behind_the_part_that_is_looked_at(self) -> None:
        filler = b"B" + (MAX_PICKLE - 7).to_bytes(4, "little") + bytes(MAX_PICKLE - 7)
        data = b"\x80\x04" + filler + b"0" + calling("os", "system")[2:]
        assert _fault(data, lenient=True) is not None

    def test_declared_directory_is_not_read(self) -> None:
        end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 9, 9, 2**31, 2**31, 0)
        file: BinaryIO = _Huge(b"PK\x03\x04", end)  # type: ignore[assignment]
        assert "too many to look at" in (fault(file, 2**40, lenient=False) or "")

    def test_memory_is_flat(self) -> None:
        worst = [
            torch_zip(state_dict(2500), {str(i): bytes(16) for i in range(2500)}),
            torch_legacy(b"\x80\x02" + b"}q\0" * (MAX_OPERATIONS // 2 - 9) + b".", storages=bytes(MAX_PICKLE)),
        ]
        for data in worst:
            tracemalloc.start()
            _fault(data)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 80 * 2**20


_opcodes = st.sampled_from(
    [bytes([op]) for op in range(256)]
    + [named("os", "system"), named("torch", "Size"), short("os"), short("system"), b"\x80\x04", b"h\0", b"\x94", b"."]
)


@given(st.lists(_opcodes, max_size=30), st.booleans())
@settings(max_examples=400, derandomize=True)
def test_any_bytes_have_an_answer(parts: list[bytes], zipped: bool) -> None:
    data = b"".join(parts)
    found = _fault(torch_zip(data) if zipped else data)
    assert found is None or found


@given(st.integers(0, 2000), st.integers(0, 255))
@settings(max_examples=300, derandomize=True)
def test_any_damage_to_an_archive_has_an_answer(place: int, value: int) -> None:
    data = bytearray(torch_zip(state_dict(), _STORAGES))
    data[place % len(data)] = value
    _fault(bytes(data))


def test_says_who_looked() -> None:
    assert scanner().startswith("layerbuild rules 1, picklescan ")

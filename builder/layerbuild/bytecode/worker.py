"""What runs in the target's Python: compiles sources that come in on stdin, for as long as they come.

It is given to an interpreter of another version than layerbuild's own (3.8 to 3.13) as text, and so uses
nothing but what each of them has built in. Each source is compiled in a process of its own, a fork of this
one: a source that makes the compiler crash, hang or eat memory hurts nobody else.

A request is the limits of processor seconds and of bytes of memory, the lengths of path and source, and both of
these. The answer is a length and as many bytes, the first of them a letter: `C` the `.pyc`, `I` why this is no
valid source, `F` why nobody can tell.

`marshal` does not write the same bytes for the same code: flags tell which objects were referred to from
elsewhere in the process, strings are marked that others happened to intern, and a frozenset comes in the order
of its hashes. So what it wrote is read here and written again: equal constants are one object, that is marked
where it is referred to twice; sets are sorted. The format is that of CPython's Python/marshal.c, version 4.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import struct
import sys
import warnings
from importlib.util import MAGIC_NUMBER, source_hash

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
_REF = 0x80
_PLAIN = b"NTF.S"
_STRINGS = b"zZaAut"
_FIXED = {ord("i"): 4, ord("g"): 8, ord("y"): 16}
_NAME = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_UNCHECKED = b"\1\0\0\0"
"""PEP 552: by the source's hash, which nobody looks at."""

# How a code object is laid out: numbers, objects, the first line, objects.
_LAYOUT = (6, 8, 1) if sys.version_info[1] < 11 else (5, 8, 2)


def _long(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little", signed=True)


if TYPE_CHECKING:
    from typing import Any

    _Object = tuple[int, bytes, tuple[int, ...]]


class _Objects:
    """Reads what `marshal` wrote into objects, each distinct one once: kind, bytes, numbers of its parts."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.seen: list[int] = []
        self.numbers: dict[_Object, int] = {}
        self.objects: list[_Object] = []
        self.uses: list[int] = []
        self.root = self.read()

    def read(self) -> int:
        data = self.data
        kind = data[self.at]
        self.at += 1
        flagged, kind = kind & _REF, kind & 0x7F
        if kind == 0x72:  # r: one that was flagged
            self.at += 4
            return self.seen[_long(data, self.at - 4)]
        place = len(self.seen)
        if flagged:
            self.seen.append(-1)
        number = self.number(self.parts(kind))
        if flagged:
            self.seen[place] = number
        return number

    def parts(self, kind: int) -> _Object:
        """Kind, bytes and parts of the object that begins here."""
        if kind in _PLAIN:
            return kind, b"", ()
        if kind in _STRINGS:
            return 0x75, self.take(self.length(short=kind in b"zZ")), ()
        if kind == 0x73:  # s: bytes
            return kind, self.take(self.length(short=False)), ()
        if kind in b")(":
            return 0x28, b"", self.several(self.length(short=kind == 0x29))
        if kind == 0x3E:  # >: frozenset
            return kind, b"", tuple(sorted(self.several(self.length(short=False)), key=self.alone))
        if kind == 0x63:  # c: code
            numbers, before, after = _LAYOUT
            head = self.take(4 * numbers)
            objects = self.several(before)
            line = self.take(4)
            return kind, head + line, objects + self.several(after)
        if kind == 0x6C:  # l: 15 bits of an integer at a time
            return kind, self.take(4 + 2 * abs(_long(self.data, self.at))), ()
        return kind, self.take(_FIXED[kind]), ()

    def length(self, *, short: bool) -> int:
        if short:
            self.at += 1
            return self.data[self.at - 1]
        self.at += 4
        return _long(self.data, self.at - 4)

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def several(self, count: int) -> tuple[int, ...]:
        return tuple([self.read() for _ in range(count)])

    def number(self, thing: _Object) -> int:
        found = self.numbers.get(thing)
        if found is None:
            found = self.numbers[thing] = len(self.objects)
            self.objects.append(thing)
            self.uses.append(0)
            for part in thing[2]:
                self.uses[part] += 1
        return found

    def alone(self, number: int) -> tuple[Any, ...]:
        """What orders the members of a set."""
        kind, data, parts = self.objects[number]
        return kind, data, tuple([self.alone(part) for part in parts])


class _Writer:
    """Writes objects as `marshal` would, each once."""

    def __init__(self, found: _Objects) -> None:
        self.objects, self.uses = found.objects, found.uses
        self.places: dict[int, int] = {}
        self.out = bytearray()
        self.write(found.root)

    def write(self, number: int) -> None:
        out = self.out
        place = self.places.get(number)
        if place is not None:
            out += b"r" + struct.pack("<i", place)
            return
        kind, data, parts = self.objects[number]
        begin = len(out)
        if kind == 0x75:
            self.text(data)
        elif kind == 0x28:
            out += struct.pack("<BB", 0x29, len(parts)) if len(parts) < 256 else b"(" + struct.pack("<i", len(parts))
        elif kind == 0x3E:
            out += b">" + struct.pack("<i", len(parts))
        elif kind == 0x73:
            out += b"s" + struct.pack("<i", len(data)) + data
        elif kind == 0x63:
            out += b"c" + data[:-4]
        else:
            out.append(kind)
            out += data
        # Not worth a reference, which has five bytes: there is one of each in a process.
        if self.uses[number] > 1 and kind not in _PLAIN and (parts or kind != 0x28):
            out[begin] |= _REF
            self.places[number] = len(self.places)
        if kind == 0x63:
            for part in parts[: _LAYOUT[1]]:
                self.write(part)
            out += data[-4:]
            parts = parts[_LAYOUT[1] :]
        for part in parts:
            self.write(part)

    def text(self, data: bytes) -> None:
        # The compiler interns what looks like a name; the others are when they are loaded as names.
        interned = _NAME.issuperset(data)
        if not data.isascii():
            self.out += b"u" + struct.pack("<i", len(data))
        elif len(data) < 256:
            self.out += struct.pack("<BB", 0x5A if interned else 0x7A, len(data))
        else:
            self.out += (b"A" if interned else b"a") + struct.pack("<i", len(data))
        self.out += data


def _compiled(source: bytes, path: str) -> bytes:
    """The `.pyc` of a source (PEP 552), as it will lie beside `path` in the image."""
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    sys.setrecursionlimit(10000)
    return MAGIC_NUMBER + _UNCHECKED + source_hash(source) + bytes(_Writer(_Objects(marshal.dumps(code, 4))).out)


def _answer(source: bytes, path: str, memory: int) -> bytes:
    try:
        return b"C" + _compiled(source, path)
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        return b"I" + type(error).__name__.encode()
    except MemoryError:
        # The parser says so too where something is nested too deeply, and that is so on every machine.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return b"Fit takes too much memory" if peak > memory // 4 else b"IMemoryError"


def _forked(source: bytes, path: str, seconds: int, memory: int) -> bytes:
    """The answer of a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            with os.fdopen(writing, "wb") as answer:
                answer.write(_answer(source, path, memory))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        told = answer.read()
    status = os.waitpid(child, 0)[1]
    if status == 0 and told:
        return told
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        return b"Fit takes too much time"
    return b"Fthe compiler crashed"


def main() -> None:
    """Answer requests until there are no more."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        head = requests.read(20)
        if len(head) < 20:
            return
        seconds, memory, of_path, of_source = struct.unpack("<IQII", head)
        path = requests.read(of_path).decode()
        told = _forked(requests.read(of_source), path, seconds, memory)
        answers.write(struct.pack("<I", len(told)) + told)
        answers.flush()


if __name__ == "__main__":
    main()

"""Reads a pickle without running it: to its end, and what it would import.

The opcodes are those of CPython's `Lib/pickletools.py`. Where two readers of a pickle could understand
different things, it is refused.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass, field

from layerbuild.pickles.refusal import NoPickle, Refusal

MAX_OPERATIONS = 300_000
"""Of one pickle: a checkpoint of SDXL has 80,000. Whoever reads them keeps them all."""

_TEXTS = frozenset(
    ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
)
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_EXTENSIONS = frozenset(("EXT1", "EXT2", "EXT4"))
_PLAIN = frozenset(("PROTO", "FRAME", "STOP"))
_OPCODES = frozenset(opcode.code for opcode in pickletools.opcodes)


@dataclass(kw_only=True)
class Walk:
    """What was seen.

    Attributes:
        calls: (module, name) of everything that it imports.
        number: the number that is all of it; None where there is more, or something else.
        size: bytes up to its end.
    """

    calls: set[tuple[str, str]] = field(default_factory=set)
    number: int | None = None
    size: int = 0


def walk(data: bytes) -> Walk:
    """Read the pickle that `data` begins with.

    Raises:
        NoPickle: it begins with bytes at which every reader stops before it has called anything.
        Refusal: it cannot be read to its end, or only running it would tell what it does.
    """
    stream, found, stack, count = io.BytesIO(data), Walk(), _Texts(), 0
    alone, end = True, 0
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            count, end = count + 1, stream.tell()
            if count > MAX_OPERATIONS:
                raise Refusal(f"its pickle has more than {MAX_OPERATIONS} operations, too many to look at")
            name = opcode.name
            if name in ("GLOBAL", "INST"):
                module, _, attribute = str(argument).partition(" ")
                found.calls.add((module, attribute))
            elif name == "STACK_GLOBAL":
                found.calls.add(stack.imported())
            elif name in _EXTENSIONS:
                raise Refusal("its pickle calls what a registry of extensions says")
            stack.see(name, argument)
            if name in ("LONG1", "LONG4", "BININT", "INT", "LONG") and found.number is None:
                found.number = int(str(argument))
            elif name not in _PLAIN:
                alone = False
    # What pickletools raises on bytes that are no pickle is not told by its documentation.
    except (ValueError, IndexError, AttributeError, KeyError, OverflowError, MemoryError) as error:
        # Not so at the end of `data`: there may be more in the file.
        if not found.calls and end < len(data) and chr(data[end]) not in _OPCODES:
            raise NoPickle("it is neither a pickle nor an archive as torch.save writes them") from None
        raise Refusal(f"its pickle cannot be read to its end ({str(error)[:120]})") from None
    found.size = stream.tell()
    found.number = found.number if alone else None
    return found


class _Texts:
    """The texts on top of the stack, as far as they are known for sure."""

    def __init__(self) -> None:
        self._top: list[str | None] = []
        self._memo: dict[int, str | None] = {}

    def see(self, name: str, argument: object) -> None:
        """The next operation."""
        if name in _TEXTS:
            self._top = [*self._top[-1:], str(argument)]
        elif name in _GETS:
            self._top = [*self._top[-1:], self._memo.get(int(str(argument)))]
        elif name in _PUTS:
            self._memo[int(str(argument))] = self._top[-1] if self._top else None
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top[-1] if self._top else None
        else:
            self._top = []

    def imported(self) -> tuple[str, str]:
        """Module and name that are taken from the stack now.

        Raises:
            Refusal: they were not simply put there.
        """
        if len(self._top) < 2 or None in self._top:
            raise Refusal("its pickle makes the name of what it calls while it runs")
        module, name = self._top
        return str(module), str(name)

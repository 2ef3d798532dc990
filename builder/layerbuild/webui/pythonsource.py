"""Python that a stranger wrote, parsed and never run.

What CPython's own parser makes of a text without end depends on its release: some run out of stack
and die. So what nests deeper than anybody writes is not given to it.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings

MAX_SIZE = 1024 * 1024
"""Bytes. A longer text is not read."""

_MOST_OPERATORS = 10_000
"""Operators and brackets of one statement: each may nest what is before it one level deeper. Those that
died did so beyond 40,000, on a stack of 8 MiB."""

_FLAT = frozenset({",", ":", "="})


def parse(text: str) -> ast.Module | None:
    """The tree of `text`; None where it is none, is cut off at `MAX_SIZE`, or nests too deep."""
    try:
        if len(text.encode()) >= MAX_SIZE or _nests_too_deep(text := text.removeprefix("\ufeff")):
            return None
        with warnings.catch_warnings():
            # An invalid escape in it is nothing to tell our user of.
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError, MemoryError):
        return None


def _nests_too_deep(text: str) -> bool:
    count = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.OP and token.string not in _FLAT:
            count += 1
        elif token.type == tokenize.NEWLINE:
            count = 0
        if count > _MOST_OPERATORS:
            return True
    return False

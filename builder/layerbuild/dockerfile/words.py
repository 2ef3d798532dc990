"""Command lines taken apart: options with their values, and what is left. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Line:
    """Options, each with its values, and operands in their order."""

    options: Mapping[str, Sequence[str]]
    operands: Sequence[str]

    def last(self, *names: str) -> str | None:
        """The value of an option that goes by any of these names; the last one, where it was given again."""
        found = [values[-1] for name in names if (values := self.options.get(name))]
        return found[0] if found else None

    def has(self, *names: str) -> bool:
        """Whether an option was given, with or without a value."""
        return any(name in self.options for name in names)


def parsed(words: Sequence[str], with_value: Collection[str]) -> Line:
    """Options as GNU getopt takes them.

    Args:
        with_value: options that take a value: single letters, and long names without their dashes.
    """
    options: dict[str, list[str]] = {}
    operands: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            operands += rest
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            values = options.setdefault(name, [])
            if equals:
                values.append(value)
            elif name in with_value and rest:
                values.append(rest.pop(0))
        elif word.startswith("-") and len(word) > 1:
            _short(word[1:], rest, with_value, options)
        else:
            operands.append(word)
    return Line(options=options, operands=operands)


def _short(letters: str, rest: list[str], with_value: Collection[str], options: dict[str, list[str]]) -> None:
    for at, letter in enumerate(letters):
        values = options.setdefault(letter, [])
        if letter in with_value:
            if letters[at + 1 :]:
                values.append(letters[at + 1 :])
            elif rest:
                values.append(rest.pop(0))
            return

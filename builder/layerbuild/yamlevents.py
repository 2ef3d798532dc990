"""The events of a YAML text, aliases replaced by the events of what they stand for.

Events and not nodes: libyaml's composer ends the process when nesting exhausts the stack, and it
holds a large file many times over.
"""

from __future__ import annotations

from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Excess(Exception):
    """A text that is beyond reading further: message and hint are its arguments."""

    def __init__(self, event: Any, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.event = event


class Events:
    """The events of one text, one after the other."""

    def __init__(self, text: str) -> None:
        self._loader = _Loader(text)
        # Without aliases two events cost at least one character; with honest ones, hardly less.
        self._left = 2 * len(text) + 16
        self._anchored: dict[str, list[Any]] = {}
        self._open: dict[str, int] = {}
        """Anchors of collections that have not ended, and how deep we are in each."""
        self._again: list[Any] = []

    def close(self) -> None:
        """Let go of the text."""
        self._loader.dispose()

    def next(self) -> Any:
        """The next event.

        Raises:
            yaml.YAMLError: not YAML.
            Excess: aliases blow the text up (the "billion laughs").
        """
        if self._again:
            event = self._again.pop()
        else:
            event = self._loader.get_event()
            if self._open or getattr(event, "anchor", None) is not None:
                self._remember(event)
        self._left -= 1
        if not self._left:
            raise Excess(event, "too large once its aliases are expanded", "write the values out, or split the file")
        if not isinstance(event, yaml.AliasEvent):
            return event
        if event.anchor in self._open:
            raise broken(event, f"aliases cannot stand for themselves, as {event.anchor!r} does")
        if event.anchor not in self._anchored:
            raise broken(event, f"found undefined alias {event.anchor!r}")
        self._again += reversed(self._anchored[event.anchor])
        return self.next()

    def _remember(self, event: Any) -> None:
        for outer in list(self._open):
            self._anchored[outer].append(event)
            self._open[outer] += deeper(event)
            if not self._open[outer]:
                del self._open[outer]
        anchor = getattr(event, "anchor", None)
        if anchor is None or isinstance(event, yaml.AliasEvent):
            return
        if anchor in self._anchored:
            raise broken(event, f"found duplicate anchor {anchor!r}")
        self._anchored[anchor] = [event]
        if deeper(event):
            self._open[anchor] = 1


def broken(event: Any, problem: str) -> yaml.MarkedYAMLError:
    """An error at an event's place, as the parser itself would raise it."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def deeper(event: Any) -> int:
    """By how much an event makes the nesting grow."""
    return isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)

"""Why a file is not loaded."""

from __future__ import annotations


class Refusal(Exception):
    """A file may not be loaded, or it cannot be told what loading it would do."""


class NoPickle(Exception):
    """A file cannot be a pickle at all."""

"""Errors travel: what another process raised arrives whole, and an exception that nobody foresaw tells no secret."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import layerbuild
from layerbuild.errors import ImagesFailed, LayerbuildError, NotFound, Problem, ProjectError, UsageError, unforeseen


def _kinds(kind: type[LayerbuildError]) -> Iterator[type[LayerbuildError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def all_kinds() -> list[type[LayerbuildError]]:
    """Every class of errors, those of inner modules included."""
    for module in pkgutil.walk_packages(layerbuild.__path__, "layerbuild."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(set(_kinds(LayerbuildError)), key=lambda kind: (kind.__module__, kind.__qualname__))


def _made(kind: type[LayerbuildError]) -> LayerbuildError:
    if issubclass(kind, ProjectError):
        return kind([Problem(file="r.yaml", line=3, key="name", message="is wrong", hint="mend it")])
    if issubclass(kind, ImagesFailed):
        return kind({"one": NotFound("gone", cause="404", hint="look")}, 2)
    return kind("what, where", cause="why", hint="do this")


def test_every_error_survives_its_way_to_another_process() -> None:
    kinds = all_kinds()
    assert len(kinds) > 20
    for kind in kinds:
        error = _made(kind)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (again.message, again.cause, again.hint) == (error.message, error.cause, error.hint)
        assert (str(again), again.args, again.brief, again.exit_code) == (
            str(error),
            error.args,
            error.brief,
            error.exit_code,
        )


def test_what_an_error_carries_arrives() -> None:
    problem = Problem(file="r.yaml", message="is wrong", hint="mend it")
    assert pickle.loads(pickle.dumps(ProjectError([problem]))).problems == (problem,)
    failed = pickle.loads(pickle.dumps(ImagesFailed({"one": UsageError("no", hint="yes")}, 1))).failed
    assert type(failed["one"]) is UsageError and failed["one"].hint == "yes"


def _gone() -> NotFound:
    """An error with a past that nobody else should see."""
    try:
        try:
            raise ValueError("https://example.org/f?signature=geheim")
        except ValueError as error:
            raise NotFound("https://example.org/f is gone") from error
    except NotFound as error:
        return error


@pytest.mark.parametrize("first", ["layerbuild.errors", "distributed"])
def test_no_traceback_travels(first: str) -> None:
    # Dask teaches pickle to take tracebacks along, for the exceptions that it finds when it is loaded.
    code = (
        f"import {first}, layerbuild.errors, distributed, pickle, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_errors import _gone; from layerbuild.execute.job import Failed, _at\n"
        "data = pickle.dumps(Failed(error=_at(_gone(), 'there')))\n"
        "assert b'geheim' not in data\n"
        "again = pickle.loads(data).error\n"
        "assert (again.__traceback__, again.__cause__, again.__context__) == (None, None, None)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("https://example.org/f?signature=geheim"), "ValueError"),
        (requests.ConnectionError("https://example.org/f?signature=geheim"), "reading or writing failed"),
        (OSError(28, "No space left on device", "/data/x"), "/data/x cannot be used"),
    ],
)
def test_what_nobody_foresaw_is_told_without_its_words(error: Exception, words: str) -> None:
    told = unforeseen(error)
    assert type(told) is LayerbuildError and words in told.message and told.hint
    assert "geheim" not in str(told)

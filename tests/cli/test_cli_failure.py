"""Errors of every origin have one form."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import click
import jsonschema
import pytest

import layerbuild
from fixtures.form import anchors
from fixtures.project import Project
from fixtures.web import Answer, Web
from layerbuild import errors
from layerbuild.cli import failure
from layerbuild.cli.events import EVENTS, MEANINGS, json_schema
from layerbuild.errors import ImagesFailed, LayerbuildError, NotFound, Problem, ProjectError
from layerbuild.similar import closest, did_you_mean
from test_errors import all_kinds

ROOT = Path(layerbuild.__file__).parent


# --- every error in the source -----------------------------------------------------------------------


def _raised() -> Iterator[tuple[str, ast.Call, type[object]]]:
    """Every call in our source that makes an error or a problem."""
    kinds: dict[str, type[object]] = {kind.__name__: kind for kind in all_kinds()} | {"Problem": Problem}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in kinds:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node, kinds[name]


_TELL_THEMSELVES = (ProjectError, ImagesFailed)
"""They are made of others, which have their own ways out."""


def test_every_error_says_what_to_do() -> None:
    found = list(_raised())
    assert len(found) > 300
    without = [
        place
        for place, call, kind in found
        if not any(word.arg in ("hint", None) for word in call.keywords)
        and kind not in _TELL_THEMSELVES
        and getattr(kind, "way_out", None) is None
    ]
    assert not without


def test_every_message_is_one_sentence_without_a_full_stop() -> None:
    wrong = []
    for place, call, kind in _raised():
        said = [a for a in call.args[:1] if kind is not Problem] + [w.value for w in call.keywords if w.arg == "hint"]
        said += [word.value for word in call.keywords if word.arg == "message"]
        for text in said:
            last = text.values[-1] if isinstance(text, ast.JoinedStr) else text
            if isinstance(last, ast.Constant) and str(last.value).endswith((".", "!", " ")):
                wrong.append(place)
    assert not wrong


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_every_page_exists(kind: type[LayerbuildError]) -> None:
    assert errors.DOCS + kind.page in anchors()


# --- how they are told -------------------------------------------------------------------------------


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    failure.show(NotFound("no x\x1b[2J at y", cause="404", hint="look\x07 there"))
    assert capsys.readouterr() == (
        "",
        "error: no x\\x1b[2J at y\n  because: 404\n  try: look\\x07 there\n  see: docs/troubleshooting.md#sources\n",
    )


def test_nothing_in_a_message_is_an_order_to_a_terminal() -> None:
    assert failure.printable("a\x1b[2Jb\x9bc\u202etxt.exe\u2066\n\té…") == "a\\x1b[2Jb\\x9bc\\u202etxt.exe\\u2066\n\té…"


def test_for_programs() -> None:
    problem = Problem(file="r.yaml", line=3, key="name", message="is wrong")
    told = failure.as_json(ProjectError([problem]))
    assert told["where"] == "r.yaml:3" and told["exit_code"] == 2
    (first,) = told["problems"]
    assert first["line"] == 3 and "declarations.md" in first["hint"]
    told = failure.as_json(ImagesFailed({"one": NotFound("gone", hint="look"), "two": NotFound("off", hint="do")}, 3))
    assert told["failed"]["two"]["message"] == "off" and told["hint"] == "look; do"
    assert told["docs"] == "docs/troubleshooting.md#sources"
    json.dumps(told)


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("sd51", ["sdxl", "sd15"], "sd15"),
        ("SD15", ["sdxl", "sd15"], "sd15"),
        ("plna", ["plan", "push"], "plan"),
        ("nothing-like-it", ["plan"], None),
        ("x", [], None),
    ],
)
def test_similar_names(name: str, known: list[str], found: str | None) -> None:
    assert closest(name, known) == found
    assert did_you_mean(name, known) == (f"; did you mean {found!r}?" if found else "")


# --- command lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["psuh"], ["'layerbuild' has no command 'psuh'", "did you mean 'push'?"]),
        (["--projet", "x"], ["'layerbuild' has no option --projet", "did you mean '--project'?"]),
        (["push", "--jsn", "x"], ["'layerbuild push' has no option --jsn", "did you mean '--json'?"]),
        (["push"], ["'layerbuild push' needs DEST", "write layerbuild push [OPTIONS] DEST [IMAGE]..."]),
        (["attach", "r:1"], ["'layerbuild attach' needs FILE", "layerbuild attach --help"]),
        (["attach", "r:1", "f"], ["'layerbuild attach' needs --type"]),
        (
            ["push", "--mount", "requird", "x"],
            ["for --mount", "'requird' is none of its values", "did you mean 'required'?"],
        ),
        (["schema", "layer"], ["layers, recipe", "did you mean 'layers'?"]),
        (["plan", "--to"], ["--to", "requires an argument"]),
        (["schema", "layers", "more"], ["unexpected extra argument"]),
        (["lock", "--check=1"], ["--check", "does not take a value"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_command_lines(project: Project, arguments: list[str], words: list[str]) -> None:
    found = project.run(*arguments, check=False).failed(2, *words)
    assert found.out == "" and "docs/troubleshooting.md#the-command-line" in found.err


def test_without_arguments_it_says_what_there_is(project: Project) -> None:
    found = project.run()
    assert found.out.startswith("Usage: layerbuild ") and found.err == ""


def test_other_exceptions_of_click() -> None:
    told = failure.explained(click.FileError("x", hint="No such file."))
    assert told.message and not told.message.endswith(".") and told.hint and told.exit_code == 2


# --- events ------------------------------------------------------------------------------------------

_LAYERS = "note: {kind: files, files: {/opt/x: {content: hi}}}\n"
_RECIPE = "name: one\nlayers: [note]\ntags: [v1]\n"


@pytest.fixture
def plain(project: Project) -> Project:
    return project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE})


def test_every_event_is_described() -> None:
    assert set(EVENTS) == set(MEANINGS)
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_events_of_a_push(plain: Project) -> None:
    plain.run("lock")
    first = plain.run("push", "oci:out", "--json")
    assert first.json["images"] and {"start", "done", "result"} <= {event["event"] for event in first.events}
    starts = {event["task"]: event["label"] for event in first.events if event["event"] == "start"}
    done = {event["task"]: event["label"] for event in first.events if event["event"] == "done"}
    assert starts == done and all(event.get("ok", True) for event in first.events)
    result = first.events[-1]
    assert result["event"] == "result" and result["exit_code"] == 0
    assert result["sent_bytes"] == first.json["uploaded_bytes"] > 0

    again = plain.run("push", "oci:out", "--json")
    skipped = [event for event in again.events if event["event"] == "skip"]
    assert {event["why"] for event in skipped} == {"known", "present"}
    result = again.events[-1]
    assert (
        result["sent_bytes"] == again.json["uploaded_bytes"]
        and result["present_bytes"] == again.json["present_bytes"] > 0
    )


def test_events_of_an_error(plain: Project) -> None:
    found = plain.run("push", "oci:out", "--json", check=False).failed(2, "there is no lockfile.yaml")
    (event,) = found.events
    assert event["event"] == "error" and event["docs"] == "docs/troubleshooting.md#the-lock" and "trace" not in event
    (event,) = plain.run("--debug", "push", "oci:out", "--json", check=False).events
    assert "LockError" in event["trace"]
    (event,) = plain.run("push", "--json", check=False).events
    assert event["event"] == "error" and event["exit_code"] == 2


def test_quiet_tells_of_errors_only(plain: Project) -> None:
    assert plain.run("-q", "lock", "--json").err == ""
    plain.write({"recipes/r.yaml": _RECIPE.replace("note", "nte")})
    (event,) = plain.run("-q", "lock", "--json", check=False).events
    (problem,) = event["problems"]
    assert problem["line"] == 2 and "did you mean 'note'?" in problem["hint"]
    assert event["where"] == "recipes/r.yaml:2"


def test_requests_and_their_sizes(project: Project, web: Web) -> None:
    web.handle("/f", lambda asked: Answer(body=b"x" * 100))
    source = f"{web.url}/f?token=geheim-und-lang-genug"
    project.write({"layers/l.yaml": f"f: {{kind: files, files: {{/opt/x: '{web.url}/f'}}}}\n"})
    project.write({"recipes/r.yaml": "name: one\nlayers: [f]\n"})
    told = project.run("-v", "lock").err
    assert "GET " in told and "100 B to come" in told and " in 0." in told
    log = [event for event in project.run("-v", "lock", "--update-all", "--json").events if event["event"] == "log"]
    assert any("100 B to come" in event["message"] for event in log)
    project.write({"layers/l.yaml": f"f: {{kind: files, files: {{/opt/x: '{source}'}}}}\n"})
    for options in (["--debug"], ["-v"], ["--debug", "-v"]):
        for more in ([], ["--json"]):
            told = project.run(*options, "lock", *more, check=False).err
            assert "geheim" not in told and told

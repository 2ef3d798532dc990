"""The tree of errors. Everything that layerbuild raises on purpose is one of these.

    LayerbuildError            exit 1
    ├── UsageError             exit 2   the command line cannot be carried out as written
    ├── ProjectError           exit 2   declarations are wrong; carries every problem found in the run
    ├── LockError              exit 2   the lock is missing, damaged, or was edited by hand
    │   └── DriftError         exit 3   the lock does not say what the declarations say
    ├── SourceError            exit 1   where bytes come from
    │   ├── Unreachable                 no answer, or only errors that may pass
    │   ├── NotFound                    the server is sure that it is not there
    │   ├── AccessDenied                a login, a token or an accepted licence is missing
    │   ├── ContentMismatch             bytes arrived, and are not what was pinned
    │   └── UnsafePickle                loading it may run code of whoever made it
    ├── DestinationError       exit 1   where images go
    │   ├── LoginRequired               the registry asks for credentials, or refuses those it got
    │   ├── DigestFirst                 the place takes a blob only by its digest
    │   ├── BlobUnknown                 a manifest names a blob that its repository lacks
    │   └── DestinationDown             no answer: nothing else can be put there either
    ├── BytecodeError          exit 1   Python's bytecode for an image
    │   ├── InterpreterMissing          no Python of the target's version is on this machine
    │   └── CompileError                the compiler crashed, or takes too much time or memory
    ├── StoreError             exit 1   this machine's cache
    │   ├── BrokenDatabase              what it remembers cannot be read
    │   └── Damaged                     something in it was; it is removed, and can be had anew
    ├── NotReproducible        exit 1   a layer came out different from its receipt
    ├── WrongImage             exit 1   a pushed image is not what the lock makes
    ├── ExecutorError          exit 1   other machines that make layers: gone, or not fit for it
    └── ImagesFailed           exit 1   some images of a run failed; the others are done

Each error has four parts, and the command line prints them in this order: `message` (what failed,
and where), `cause` (why, in the words of whoever knows), `hint` (what to do about it) and `docs` (the
page that says more). None of them may ever contain a secret: addresses go through
`layerbuild.addresses.redact` first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

DOCS = "docs/"
"""Where the documentation is; the names of pages follow."""

_LOOK = f"{DOCS}declarations.md says what belongs there"
"""What to do about a declaration where nobody knows better."""

_LISTED = 20
"""Failures that one error tells of."""


class LayerbuildError(Exception):
    """A failure that a person can act on.

    Args:
        message: what failed, and where; one sentence without a full stop.
        cause: why it failed, when that is known; may be the words of a server.
        hint: what to do about it, as an instruction; by default the class's `way_out`.

    Attributes:
        page: of the documentation, with its anchor.
        where: file and line that are at fault, where that is one place.
    """

    exit_code: ClassVar[int] = 1
    page: ClassVar[str] = "troubleshooting.md#when-layerbuild-itself-fails"
    way_out: ClassVar[str | None] = None
    where: str | None = None

    def __init__(self, message: str, *, cause: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.hint = hint or self.way_out

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors of other machines come home. What a constructor takes is not what it leaves in `args`.
        return _restored, (type(self), self.args, self.__dict__)

    @property
    def docs(self) -> str:
        """Where the documentation says more."""
        return DOCS + self.page

    @property
    def brief(self) -> str:
        """Message and cause in one line, for lists of what went wrong."""
        return f"{self.message} ({self.cause})" if self.cause else self.message

    def __str__(self) -> str:
        parts = [self.message]
        if self.cause:
            parts.append(f"because: {self.cause}")
        if self.hint:
            parts.append(f"try: {self.hint}")
        return "\n".join(parts)


def _restored(kind: type[LayerbuildError], args: tuple[object, ...], state: Mapping[str, object]) -> LayerbuildError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(LayerbuildError):
    """The command line cannot be carried out as written."""

    exit_code = 2
    page = "troubleshooting.md#the-command-line"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong in a declaration, and where.

    Attributes:
        file: the file as the user knows it, relative to the project where possible.
        line: 1-based line, or None where the whole file is meant.
        key: dotted path of the key, or None.
        message: what is wrong.
        hint: what to do about it.
    """

    file: str
    line: int | None = None
    key: str | None = None
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = f"{where}: {self.key}: " if self.key else f"{where}: "
        text = subject + self.message
        return f"{text}\n    try: {self.hint}" if self.hint else text


class ProjectError(LayerbuildError):
    """Declarations are wrong. All problems of a run are reported together, each with its own way out."""

    exit_code = 2
    page = "troubleshooting.md#declarations"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        super().__init__(f"{head} in the project:\n" + "\n".join(f"  {p}" for p in self.told))
        self.where = next((f"{p.file}:{p.line}" if p.line else p.file for p in self.problems), None)

    @property
    def told(self) -> tuple[Problem, ...]:
        """The problems, each with a way out."""
        return tuple(p if p.hint else replace(p, hint=_LOOK) for p in self.problems)


class LockError(LayerbuildError):
    """The lock is missing, damaged, or was edited by hand."""

    exit_code = 2
    page = "troubleshooting.md#the-lock"


class DriftError(LockError):
    """The lock does not say what the declarations say."""

    exit_code = 3


class SourceError(LayerbuildError):
    """Bytes cannot be had from where they should come from."""

    page = "troubleshooting.md#sources"


class Unreachable(SourceError):
    """No answer, or only errors that may pass."""


class NotFound(SourceError):
    """The server is sure that it is not there."""


class AccessDenied(SourceError):
    """A login, a token or an accepted licence is missing."""


class ContentMismatch(SourceError):
    """Bytes arrived, and are not what was pinned."""


class UnsafePickle(SourceError):
    """Loading a file may run code of whoever made it."""

    page = "trust.md#pickles"


class DestinationError(LayerbuildError):
    """An image cannot be put where it should go."""

    page = "troubleshooting.md#pushing"


class LoginRequired(DestinationError):
    """The registry asks for credentials, or refuses those that it got."""

    page = "pushing.md#logins"


class DigestFirst(DestinationError):
    """The place takes a blob only by its digest. Whoever sends computes it first, and sends then."""

    way_out = "run the command again without --no-store: the digest is then computed before anything is sent"


class BlobUnknown(DestinationError):
    """A manifest names a blob that its repository lacks."""

    way_out = "push again: what is missing there is sent"


class DestinationDown(DestinationError):
    """No answer: nothing else can be put there either."""


class BytecodeError(LayerbuildError):
    """Bytecode that an image should hold cannot be made."""

    page = "troubleshooting.md#building"


class InterpreterMissing(BytecodeError):
    """No Python of the target's version is on this machine."""


class CompileError(BytecodeError):
    """Nobody can tell what a source becomes: the compiler crashed, or takes too much time or memory."""


class StoreError(LayerbuildError):
    """This machine's cache cannot be used."""

    page = "troubleshooting.md#building"


class BrokenDatabase(StoreError):
    """What the store remembers cannot be read any more. All of it can be learnt again."""


class Damaged(StoreError):
    """Something in this machine's cache was damaged. It has been removed: trying again makes it anew."""

    way_out = "run the command again: it is had anew"


class NotReproducible(LayerbuildError):
    """A layer came out different from its receipt."""

    page = "troubleshooting.md#building"


class WrongImage(LayerbuildError):
    """A pushed image is not what the lock makes."""

    page = "troubleshooting.md#pushing"


class ExecutorError(LayerbuildError):
    """Other machines that make layers cannot be reached, died, or are not fit for it."""

    page = "troubleshooting.md#other-machines"


class ImagesFailed(LayerbuildError):
    """Some images of a run failed; the others are done.

    Args:
        failed: what failed, by image.
        total: images of the run.
        verb: what they did.
    """

    way_out = "mend what is said of each, and run the command again"

    def __init__(self, failed: Mapping[str, LayerbuildError], total: int, verb: str = "failed") -> None:
        self.failed = dict(failed)
        lines = [f"  {name}: {error.message}" for name, error in list(failed.items())[:_LISTED]]
        more = len(failed) - _LISTED
        lines += [f"  ... and {more} more"] if more > 0 else []
        causes = dict.fromkeys(error.cause for error in failed.values() if error.cause)
        hints = dict.fromkeys(error.hint for error in failed.values() if error.hint)
        super().__init__(
            f"{len(failed)} of {total} images {verb}:\n" + "\n".join(lines),
            cause="; ".join(list(causes)[:3]) or None,
            hint="; ".join(list(hints)[:3]) or None,
        )

    @property
    def docs(self) -> str:
        """What says more of the first of them."""
        return next(error.docs for error in self.failed.values())


def raise_failed(failed: Mapping[str, LayerbuildError], total: int, verb: str = "failed") -> None:
    """Raises what stands for all failures of a run: the only one as it is.

    Raises:
        LayerbuildError: there were any.
    """
    if not failed:
        return
    first, *others = dict.fromkeys(failed.values())
    if not others and len(failed) == total:
        raise first
    raise ImagesFailed(failed, total, verb)


def unforeseen(error: Exception) -> LayerbuildError:
    """What stands for an exception that nobody raised on purpose, where it leaves the program.

    Its own message may hold anything, also a signed address: the kind of error has to do.
    """
    if isinstance(error, OSError):
        what = f"{error.filename} cannot be used" if error.filename else "reading or writing failed"
        return LayerbuildError(what, cause=error.strerror, hint="check the disk, and who may read and write there")
    return LayerbuildError(
        f"layerbuild itself failed ({type(error).__name__})",
        cause="this is a defect, not something that you did",
        hint="run the command with --debug, and report what it shows",
    )

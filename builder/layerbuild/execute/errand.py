"""One round of jobs for other machines: handed out, watched over, and explained where they fail.

Over any `concurrent.futures.Executor`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass, field
from typing import Generic, Protocol

from layerbuild.errors import DestinationDown, ExecutorError, LayerbuildError, unforeseen
from layerbuild.execute.job import Done, Failed, Job, Sealed
from layerbuild.execute.parallel import R, T
from layerbuild.progress import Progress, Task

_LOOKS = 2.0
"""Seconds between two looks at who is there."""

SAME_VERSION = "install this version of layerbuild there, for the workers and for the scheduler"
"""What to do about machines that do not do as they are told."""

_AGAIN = "run the command again: what is finished is kept"

Outcome = Done | LayerbuildError


class Crew(Protocol):
    """The machines.

    Attributes:
        name: for messages.
        patience: seconds to wait while there is no machine at all.
    """

    name: str
    patience: float

    def submit(self, job: Sealed) -> Future[Done | Failed]:
        """Have `job.work` done by one of them.

        Raises:
            BrokenExecutor: nobody is left.
        """

    def count(self) -> int | None:
        """How many there are now; None where nobody can tell."""

    def explain(self, error: BaseException) -> LayerbuildError | None:
        """What a task that ended with `error` died of; None where that is nothing special."""


@dataclass(kw_only=True)
class Errand(Generic[T, R]):
    """Has the jobs of some items done by a crew (`parallel.Away`).

    Attributes:
        job: of an item; None where it is better done here.
        home: is told what every job has made; it may refuse that.
        taken: what comes of an item.
    """

    crew: Crew
    progress: Progress
    job: Callable[[T], Job | None]
    home: Callable[[Job, Done], None]
    taken: Callable[[T, Outcome], R]
    _jobs: dict[Future[Done | Failed], Job] = field(default_factory=dict)
    _showing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _shown: Task | None = None
    _looked: float = 0
    _alone_since: float | None = None
    _given_up: LayerbuildError | None = None

    def begin(self, items: Sequence[T]) -> Mapping[int, Future[Done | Failed]]:
        """See `Away`."""
        jobs = {number: job for number, item in enumerate(items) if (job := self.job(item)) is not None}
        if not jobs:
            return {}
        label = f"{_count(len(jobs), 'layer')} on {_count(self.crew.count(), 'worker')}"
        self.progress.note(f"{label} of {self.crew.name}")
        self._shown = self._showing.enter_context(self.progress.task(label, sum(job.size for job in jobs.values())))
        futures = {number: _submitted(self.crew, job) for number, job in jobs.items()}
        self._jobs = {future: jobs[number] for number, future in futures.items()}
        return futures

    def take(self, item: T, future: Future[Done | Failed]) -> R:
        """See `Away`."""
        job = self._jobs.pop(future)
        if self._shown is not None:
            self._shown.advance(job.size)
        try:
            outcome = self._outcome(job, future)
        except DestinationDown:
            raise
        except LayerbuildError as error:
            return self.taken(item, error)
        return self.taken(item, outcome)

    def _outcome(self, job: Job, future: Future[Done | Failed]) -> Done:
        if self._given_up is not None and future.cancelled():
            raise self._given_up
        error = CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            raise self.crew.explain(error) or _explained(error, self.crew.name)
        result = future.result()
        if isinstance(result, Failed):
            raise result.error
        for text in result.notes:
            self.progress.note(f"{job.layer.title}: {text}")
        self.home(job, result)
        self.progress.note(f"{job.layer.title}: done in {result.seconds:.1f} s on {result.where}")
        return result

    def watch(self) -> None:
        """See `Away`. Where there is nobody for too long, what is left is given up."""
        now = time.monotonic()
        if not self._jobs or now < self._looked + _LOOKS:
            return
        self._looked = now
        if self.crew.count() != 0:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
            self.progress.note(f"{self.crew.name} has no workers: waiting for one")
        elif now >= self._alone_since + self.crew.patience:
            self._given_up = ExecutorError(
                f"{self.crew.name} has had no workers for {now - self._alone_since:.0f} s",
                hint=f"see why they are gone, and start some; then {_AGAIN}",
            )
            for future in tuple(self._jobs):
                future.cancel()

    def end(self) -> None:
        """See `Away`. What is not finished is dropped when the crew is left."""
        self._showing.close()


def _submitted(crew: Crew, job: Job) -> Future[Done | Failed]:
    try:
        return crew.submit(job.sealed())
    except BrokenExecutor as error:
        failed: Future[Done | Failed] = Future()
        failed.set_exception(error)
        return failed


def _explained(error: BaseException, name: str) -> LayerbuildError:
    """What a task's exception means that is not the task's own: `work` raises none."""
    if isinstance(error, CancelledError):
        return ExecutorError(f"{name} is gone, or has dropped the task", hint=f"see its log; then {_AGAIN}")
    if isinstance(error, BrokenExecutor):
        return ExecutorError(f"a worker of {name} died", hint=f"see its log for why (memory?); then {_AGAIN}")
    absent = error if isinstance(error, ImportError | AttributeError) else error.__cause__
    if isinstance(absent, ImportError | AttributeError):
        # Neither holds more than names of modules and of what is in them.
        return ExecutorError(f"{name} cannot run layerbuild's tasks", cause=str(absent)[:200], hint=SAME_VERSION)
    if isinstance(error, Exception):
        return unforeseen(error)
    raise error


def _count(number: int | None, noun: str) -> str:
    return f"{'?' if number is None else number} {noun}{'' if number == 1 else 's'}"

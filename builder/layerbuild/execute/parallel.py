"""Several things at a time: in threads of this process, and some of them elsewhere."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from layerbuild.errors import DestinationDown, LayerbuildError

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
PARALLEL = 4

_TICK = 1.0
"""Seconds after which whoever works elsewhere is looked after."""


class Away(Protocol[T_contra, R_co]):
    """Has some of the work done by others."""

    def begin(self, items: Sequence[T_contra]) -> Mapping[int, Future[Any]]:
        """Hands out what others can do; by its index. The rest is done here."""

    def take(self, item: T_contra, future: Future[Any]) -> R_co:
        """What comes of an item that others have finished.

        Raises:
            LayerbuildError: nothing does.
        """

    def watch(self) -> None:
        """Called now and then while something is under way."""

    def end(self) -> None:
        """Nobody waits any more, also for what is not finished."""


def attempts(
    work: Callable[[T], R], items: Sequence[T], *, parallel: int = PARALLEL, away: Away[T, R] | None = None
) -> list[R | LayerbuildError]:
    """As `in_threads`, with failures among the results: one that fails does not stop the others.

    Raises:
        DestinationDown: nothing else can succeed either.
    """

    def kept(result: Callable[[], R]) -> R | LayerbuildError:
        try:
            return result()
        except DestinationDown:
            raise
        except LayerbuildError as error:
            return error

    return _run(work, items, kept, parallel, away)


def in_threads(
    work: Callable[[T], R], items: Sequence[T], *, parallel: int = PARALLEL, away: Away[T, R] | None = None
) -> list[R]:
    """`work` on every item, several at a time, results in order. The first failure ends it.

    An interrupt does not wait for what is under way: nothing there is visible before it is complete.

    Args:
        parallel: threads here.
        away: has some of it done elsewhere, at the same time.

    Raises:
        LayerbuildError: the first failure.
    """
    return _run(work, items, lambda result: result(), parallel, away)


def _run(
    work: Callable[[T], R],
    items: Sequence[T],
    outcome: Callable[[Callable[[], R]], Any],
    parallel: int,
    away: Away[T, R] | None,
) -> list[Any]:
    if not items:
        return []
    pool = ThreadPoolExecutor(max_workers=min(parallel, len(items)))
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()
    results: dict[int, Any] = {}
    try:
        there = dict(away.begin(items)) if away is not None else {}
        here = {n: pool.submit(work, item) for n, item in enumerate(items) if n not in there}
        _tell({**there, **here}, finished)
        while there or here:
            number = _next(finished, away)
            if number in here:
                results[number] = outcome(here.pop(number).result)
            elif away is not None:
                # Whoever holds the future of a task elsewhere keeps its result alive there: it is let go at once.
                results[number] = outcome(partial(away.take, items[number], there.pop(number)))
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True, wait=False)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        if away is not None:
            away.end()
    pool.shutdown()
    return [results[number] for number in range(len(items))]


def _tell(futures: Mapping[int, Future[Any]], finished: queue.SimpleQueue[int]) -> None:
    """Have each future say its number when it is done."""
    for number, future in futures.items():
        future.add_done_callback(partial(_say, finished, number))


def _say(finished: queue.SimpleQueue[int], number: int, future: Future[Any]) -> None:
    del future
    finished.put(number)


def _next(finished: queue.SimpleQueue[int], away: Away[Any, Any] | None) -> int:
    """The number that is done next. Who works elsewhere is looked after meanwhile."""
    while away is not None:
        with contextlib.suppress(queue.Empty):
            return finished.get(timeout=_TICK)
        away.watch()
    return finished.get()

"""Several things at a time, in threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from layerbuild.errors import DestinationDown, LayerbuildError

T = TypeVar("T")
R = TypeVar("R")
PARALLEL = 4


def attempts(work: Callable[[T], R], items: Sequence[T], *, parallel: int = PARALLEL) -> list[R | LayerbuildError]:
    """As `in_threads`, with failures among the results: one that fails does not stop the others.

    Raises:
        DestinationDown: nothing else can succeed either.
    """

    def attempt(item: T) -> R | LayerbuildError:
        try:
            return work(item)
        except DestinationDown:
            raise
        except LayerbuildError as error:
            return error

    return in_threads(attempt, items, parallel=parallel)


def in_threads(work: Callable[[T], R], items: Sequence[T], *, parallel: int = PARALLEL) -> list[R]:
    """`work` on every item, several at a time, results in order. The first failure ends it.

    An interrupt does not wait for what is under way: nothing there is visible before it is complete.

    Raises:
        LayerbuildError: the first failure.
    """
    if not items:
        return []
    pool = ThreadPoolExecutor(max_workers=min(parallel, len(items)))
    futures = [pool.submit(work, item) for item in items]
    try:
        for future in as_completed(futures):
            future.result()
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True, wait=False)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
    return [future.result() for future in futures]

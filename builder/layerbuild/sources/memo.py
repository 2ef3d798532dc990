"""Each question once in a run, whoever asks it, also while its answer is on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """Answers by their questions. Safe to share between threads."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def get(self, question: Hashable, ask: Callable[[], T]) -> T:
        """The answer to `question`, from `ask` if nobody has asked yet. Who asks meanwhile waits for it.

        Raises:
            LayerbuildError: what `ask` raises; it is an answer too, and given to everybody.
        """
        with self._lock:
            answer = self._answers.get(question)
            first = answer is None
            if answer is None:
                answer = self._answers[question] = Future()
        if first:
            try:
                answer.set_result(ask())
            except BaseException as error:
                # Whatever it is, those who wait must not wait for ever.
                answer.set_exception(error)
        found: T = answer.result()
        return found

    def put(self, question: Hashable, value: object) -> None:
        """The answer to a question that nobody has asked yet; else what is known stays."""
        self.get(question, lambda: value)

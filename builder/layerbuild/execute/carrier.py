"""Brings blobs to a destination: mounted where that works, else sent; had anew where this machine's copy is damaged."""

from __future__ import annotations

from typing import Literal

from layerbuild.destinations import Destination
from layerbuild.errors import ContentMismatch, Damaged, DestinationDown, DestinationError, LayerbuildError
from layerbuild.execute.blobs import Reader
from layerbuild.execute.moves import Moves
from layerbuild.execute.pack import LayerTar, StoredBlob
from layerbuild.model import Readable
from layerbuild.plan import Transfer, Want
from layerbuild.progress import Progress
from layerbuild.store import Store

Mounted = Literal["there", "refused", "failed"]


class Carrier:
    """Carries to one destination. What went, and what could not, is told to a `Moves`.

    Args:
        must_mount: whether a blob that another repository of the registry should have is not to be sent.
    """

    def __init__(self, destination: Destination, store: Store, progress: Progress, *, must_mount: bool = False) -> None:
        self._destination = destination
        self._store = store
        self._progress = progress
        self._must_mount = must_mount

    def arrive(self, transfer: Transfer, read: Reader, moves: Moves) -> str | None:
        """The blob into the first repository that lacks it and takes it: which. None if none does.

        Raises:
            DestinationDown: there is no destination.
        """
        for number, repository in enumerate(transfer.missing, 1):
            if self.place(transfer, repository, read, moves):
                return repository
            failure = moves.failure(repository, transfer.want)
            if not isinstance(failure, DestinationError):
                # The bytes cannot be had: not for the other repositories, either.
                for name in transfer.missing[number:]:
                    moves.fail(name, transfer.want, failure)
                break
        return None

    def place(self, transfer: Transfer, repository: str, read: Reader, moves: Moves) -> bool:
        """The blob into a repository; whether that worked.

        Raises:
            DestinationDown: there is no destination.
        """
        mounted = self.mount(transfer, repository, moves) if transfer.candidates else "refused"
        return mounted == "there" or (mounted == "refused" and self._send(transfer.want, repository, read, moves))

    def mount(self, transfer: Transfer, repository: str, moves: Moves) -> Mounted:
        """The blob into a repository from one of the transfer's candidates. What is refused can be sent.

        Raises:
            DestinationDown: there is no destination.
        """
        want = transfer.want
        try:
            there = self._destination.mount(repository, want.digest or "", transfer.candidates)
            if not there and self._must_mount:
                raise self._not_mounted(transfer, repository)
        except DestinationDown:
            raise
        except LayerbuildError as error:
            moves.fail(repository, want, error)
            return "failed"
        if there:
            self.arrived(want, repository, 0, moves)
        return "there" if there else "refused"

    def _not_mounted(self, transfer: Transfer, repository: str) -> DestinationError:
        full_name = self._destination.full_name
        names = [name[1:] if name[:1] == "/" else full_name(name) for name in transfer.candidates]
        return DestinationError(
            f"{transfer.want.title} is not mounted in {full_name(repository)}, and was not uploaded",
            cause=f"the registry did not take it over from {', '.join(names)}, which should have it",
            hint="check that the login may pull from there; if it is no longer there, or the registry never mounts, "
            "push without --mount required",
        )

    def _send(self, want: Want, repository: str, read: Reader, moves: Moves) -> bool:
        try:
            try:
                self._send_once(repository, want, read())
            except Damaged as error:
                self._progress.note(f"{want.title}: {error.message}: making it anew")
                self._send_once(repository, want, read())
        except DestinationDown:
            raise
        except LayerbuildError as error:
            moves.fail(repository, want, error)
            return False
        self.arrived(want, repository, want.size or 0, moves)
        return True

    def arrived(self, want: Want, repository: str, sent: int, moves: Moves) -> None:
        """A blob is in a repository now, whoever brought it. `sent` bytes went there."""
        moves.count(want, sent)
        if sent:
            self._progress.tally.add("sent", sent)
        else:
            self._progress.skip(want.title, want.size or 0, "mounted")
        if self._destination.host is not None:
            full_name = self._destination.full_name(repository)
            self._store.remember_push(self._destination.host, full_name, want.digest or "")

    def _send_once(self, repository: str, want: Want, blob: Readable) -> None:
        try:
            with self._progress.task(f"push {want.title}", want.size) as task:
                self._destination.put(repository, blob, advance=task.advance)
        except ContentMismatch as error:
            if isinstance(blob, LayerTar | StoredBlob):
                blob.recheck()
            hint = error.hint
            if want.key is not None:
                hint = f"{hint}; if no file has changed, the lock's receipt {want.key[:16]} is wrong: remove it"
            raise ContentMismatch(f"{want.title}: {error.message}", cause=error.cause, hint=hint) from None

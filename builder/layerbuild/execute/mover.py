"""Moves the blobs of one push: each once over the line, into the other repositories by mounts where those work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from layerbuild.errors import LayerbuildError
from layerbuild.execute import survey
from layerbuild.execute.blobs import Blobs
from layerbuild.execute.carrier import Carrier
from layerbuild.execute.job import Done
from layerbuild.execute.moves import Moves
from layerbuild.execute.parallel import PARALLEL, in_threads
from layerbuild.layering import ComposedLayer
from layerbuild.plan import Transfer

if TYPE_CHECKING:
    from layerbuild.execute.errand import Outcome
    from layerbuild.execute.team import Team

SMALL_AT_ONCE = 8
"""Small blobs and manifests that are sent at a time: on these a registry spends its own time, not the line's."""

_SMALL = 1024 * 1024
"""Bytes up to which a blob is small."""


@dataclass(frozen=True, kw_only=True)
class Mover:
    """Carries transfers out. What fails is told to `moves`, and keeps nothing else from going.

    Attributes:
        team: sends large layers from elsewhere.
        ordered: blobs go one by one, in the order of the transfers.
    """

    carrier: Carrier
    blobs: Blobs
    moves: Moves
    team: Team | None
    ordered: bool

    def move(self, todo: Sequence[Transfer]) -> None:
        """Every blob into every repository that lacks it.

        Raises:
            DestinationDown: there is no destination.
        """
        mounted = in_threads(self._mount_first, todo, parallel=survey.PARALLEL)
        rest = [transfer for transfer in mounted if transfer.candidates]
        rest += self._send_first([transfer for transfer in mounted if not transfer.candidates])
        pairs = [(transfer, repository) for transfer in rest for repository in transfer.missing]
        refused = in_threads(self._is_refused, pairs, parallel=survey.PARALLEL)
        again = [pair for pair, left in zip(pairs, refused, strict=True) if left]
        self._send_first([replace(transfer, missing=(name,), candidates=()) for transfer, name in again])

    def _mount_first(self, transfer: Transfer) -> Transfer:
        """What is left to do when the first repository has it, if that can be by a mount. No candidates are left
        where it must be sent."""
        if not transfer.candidates:
            return transfer
        repository, *others = transfer.missing
        if self._is_refused((transfer, repository)):
            return replace(transfer, candidates=())
        return replace(transfer, missing=tuple(others))

    def _is_refused(self, pair: tuple[Transfer, str]) -> bool:
        return self.carrier.mount(*pair, self.moves) == "refused"

    def _send_first(self, todo: Sequence[Transfer]) -> list[Transfer]:
        """Each blob is sent to one repository that takes it. What is left to do: mounts from there."""
        large = [transfer for transfer in todo if (transfer.want.size or 0) > _SMALL]
        small = [transfer for transfer in todo if (transfer.want.size or 0) <= _SMALL]
        away = self.team.sending(self._wanted, self._taken) if self.team is not None else None
        return [
            *in_threads(self._arrive, large, parallel=self._at_once(PARALLEL), away=away),
            *in_threads(self._arrive, small, parallel=self._at_once(SMALL_AT_ONCE)),
        ]

    def _at_once(self, usual: int) -> int:
        return 1 if self.ordered else usual

    def _arrive(self, transfer: Transfer) -> Transfer:
        repository = self.carrier.arrive(transfer, self.blobs.reader(transfer.want), self.moves)
        return self._after(transfer, repository)

    def _after(self, transfer: Transfer, repository: str | None) -> Transfer:
        """What is left to do for a blob that has arrived in a repository: nothing where it has arrived in none."""
        if repository is None:
            return replace(transfer, missing=())
        left = self.moves.left(transfer.want, transfer.missing)
        return replace(transfer, missing=tuple(n for n in left if n != repository), candidates=(repository,))

    # --- elsewhere -----------------------------------------------------------------------------------

    def _wanted(self, transfer: Transfer) -> tuple[ComposedLayer, Sequence[str]] | None:
        layer = self.blobs.layer(transfer.want)
        return (layer, transfer.missing) if layer is not None else None

    def _taken(self, transfer: Transfer, outcome: Outcome) -> Transfer:
        if isinstance(outcome, Done) and outcome.repository is not None:
            self.carrier.arrived(transfer.want, outcome.repository, outcome.sent, self.moves)
            return self._after(transfer, outcome.repository)
        assert isinstance(outcome, LayerbuildError)
        for name in transfer.missing:
            self.moves.fail(name, transfer.want, outcome)
        return self._after(transfer, None)

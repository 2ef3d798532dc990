"""Makes layers again from their contents, to see whether their receipts are true. Nothing is written down.

What `nix-build --check` is to derivations: for a machine, or a CI, that reviews other people's locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from layerbuild.digests import measure
from layerbuild.errors import LayerbuildError, NotReproducible
from layerbuild.execute.pack import Packer
from layerbuild.execute.parallel import in_threads
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock
from layerbuild.model import Receipt

Status = Literal["same", "different", "no receipt", "not made"]


@dataclass(frozen=True, kw_only=True)
class RemadeLayer:
    """A layer that was made again.

    Attributes:
        key: of its instance.
        made: what its contents make; None where they cannot be had.
        problems: by what each receipt differs, or why it was not made.
    """

    title: str
    key: str
    status: Status
    made: Receipt | None
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "layer": self.title,
            "key": self.key,
            "status": self.status,
            "diff_id": self.made.diff_id if self.made else None,
            "size": self.made.size if self.made else None,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, kw_only=True)
class Rebuilder:
    """Makes layers again.

    Args:
        lock: whose receipts are held against what is made; then those of the packer's store.
    """

    packer: Packer
    lock: Lock

    def run(self, layers: Sequence[ComposedLayer]) -> tuple[RemadeLayer, ...]:
        """Every layer, whatever comes of the others. No receipt and no blob is kept."""
        return tuple(in_threads(self._remake, layers))

    def _remake(self, layer: ComposedLayer) -> RemadeLayer:
        assert layer.instance is not None
        key, title = layer.instance.key, layer.title
        try:
            made = self.packer.derive(layer, keep=measure)
        except LayerbuildError as error:
            return RemadeLayer(title=title, key=key, status="not made", made=None, problems=(error.brief,))
        told = {"the lock": self.lock.receipts.get(key), "this store": self.packer.contents.store.receipt(key)}
        receipts = {who: receipt for who, receipt in told.items() if receipt is not None}
        problems = tuple(line for who, receipt in receipts.items() for line in _differences(who, receipt, made))
        status: Status = "different" if problems else "same" if receipts else "no receipt"
        return RemadeLayer(title=title, key=key, status=status, made=made, problems=problems)


def refuse(layers: Sequence[RemadeLayer]) -> None:
    """Raise if any layer is not what its receipts say, or was not made: all of them in one error.

    Raises:
        NotReproducible: some came out different.
        LayerbuildError: some could not be made.
    """
    different = [layer for layer in layers if layer.status == "different"]
    unmade = [layer for layer in layers if layer.status == "not made"]
    lines = [f"  {layer.title}: {problem}" for layer in (*different, *unmade) for problem in layer.problems]
    if different:
        raise NotReproducible(
            "\n".join([f"not reproducible: {len(different)} of {len(layers)} layers", *lines]),
            hint="believe none of these receipts: remove them from the lock; if they were made by this version of "
            "layerbuild, please report it",
        )
    if unmade:
        raise LayerbuildError(
            "\n".join([f"{len(unmade)} of {len(layers)} layers could not be made", *lines]),
            hint="nothing is known of them; the other layers are what their receipts say",
        )


def _differences(who: str, receipt: Receipt, made: Receipt) -> list[str]:
    found = []
    if (receipt.diff_id, receipt.size) != (made.diff_id, made.size):
        found.append(
            f"{who} says {receipt.diff_id} of {receipt.size} bytes, its contents make {made.diff_id} of {made.size}"
        )
    # Another version of a compressor may make other bytes: only the same one can be held to them.
    blobs = {blob.encoding: blob for blob in made.blobs}
    for told in receipt.blobs:
        blob = blobs.get(told.encoding, told)
        if blob != told:
            found.append(
                f"{who} says {told.digest} of {told.size} bytes as {told.encoding}, it is {blob.digest} of {blob.size}"
            )
    return found

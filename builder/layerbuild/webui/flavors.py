"""Webuis that share AUTOMATIC1111's hash cache, and where each of them differs. Data and pure functions.

Read from the webui (releases 1.4 to 1.10.1), stable-diffusion-webui-forge (`modules/hashes.py`,
`extensions-builtin/sd_forge_lora`) and SD.Next (`modules/hashes.py`, `modules/sd_checkpoint.py`).
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Flavor:
    """One webui.

    Attributes:
        cache: path of the hash cache below the data directory.
        addnet_skips_header: whether a Lora's hash leaves the safetensors header out.
        metadata: whether the hash cache also holds safetensors metadata.
        short_checkpoint_keys: whether a checkpoint's key may lack its extension. SD.Next's releases
            differ in that, so both keys are written.
    """

    cache: str = "cache.json"
    addnet_skips_header: bool = True
    metadata: bool = True
    short_checkpoint_keys: bool = False


FLAVORS = {
    "a1111": Flavor(),
    "forge": Flavor(addnet_skips_header=False),
    "sdnext": Flavor(cache="data/cache.json", metadata=False, short_checkpoint_keys=True),
}


def checkpoint_keys(flavor: Flavor, key: str) -> list[str]:
    """The keys under which a checkpoint's hash is written, `checkpoint/NAME` first."""
    return [key, posixpath.splitext(key)[0]] if flavor.short_checkpoint_keys else [key]

"""Webuis that share AUTOMATIC1111's hash cache, and where each of them differs. Data and pure functions.

Read from the webui (releases 1.4 to 1.10.1), stable-diffusion-webui-forge (`modules/hashes.py`,
`extensions-builtin/sd_forge_lora`) and SD.Next (`modules/hashes.py`, `modules/sd_checkpoint.py`,
`modules/shared.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Flavor:
    """One webui.

    Attributes:
        cache: path of the hash cache below the data directory.
        cache_variables: whether it knows `SD_WEBUI_CACHE_FILE` and `SD_WEBUI_CACHE_DIR`.
        addnet_skips_header: whether a Lora's hash leaves the safetensors header out.
        metadata: whether the hash cache also holds safetensors metadata.
        extensions: whether the hash cache also holds what git says of extensions.
        short_checkpoint_keys: whether a checkpoint's key may lack its extension. SD.Next's releases
            differ in that, so both keys are written.
        changelog: whether its changelog names releases of AUTOMATIC1111's webui.
        embeddings_below_models: whether embeddings lie below the models directory, and not beside it.
    """

    cache: str = "cache.json"
    cache_variables: bool = True
    addnet_skips_header: bool = True
    metadata: bool = True
    extensions: bool = True
    short_checkpoint_keys: bool = False
    changelog: bool = True
    embeddings_below_models: bool = False


FLAVORS = {
    "a1111": Flavor(),
    "forge": Flavor(addnet_skips_header=False),
    "sdnext": Flavor(
        cache="data/cache.json",
        cache_variables=False,
        metadata=False,
        extensions=False,
        short_checkpoint_keys=True,
        changelog=False,
        embeddings_below_models=True,
    ),
}

DEFAULT_FLAVOR = "a1111"

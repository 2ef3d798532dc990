"""Pushes files with the PyPI library oras, the way its documentation does.

python oraspush.py HOST/REPOSITORY:TAG FILE...
"""

from __future__ import annotations

import sys

from oras.client import OrasClient

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"


def main() -> None:
    target, *files = sys.argv[1:]
    layers = [f"{file}:{MEDIA_TYPE}" for file in files]
    OrasClient(insecure=True).push(target=target, files=layers, disable_path_validation=True)


if __name__ == "__main__":
    main()

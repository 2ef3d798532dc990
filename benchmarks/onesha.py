"""One sha256 of a file in one thread: what hashing costs at least.

python -I -S onesha.py FILE
"""

from __future__ import annotations

import hashlib
import sys


def main() -> None:
    digest, buffer = hashlib.sha256(), bytearray(1024 * 1024)
    with open(sys.argv[1], "rb", buffering=0) as file:  # noqa: PTH123  # pathlib would be most of this program's start
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    print(digest.hexdigest())


if __name__ == "__main__":
    main()

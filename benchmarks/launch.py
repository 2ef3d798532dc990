"""Runs one command and prints what it took as one line of JSON.

    python -I -S launch.py COMMAND [ARGUMENT]...

A process of its own, and a small one: the kernel counts a child's peak memory from what its parent held when
it was started. The command's output goes to standard error, the line to standard output. Counted are the
command and every process that it, or a child of it, waited for.
"""

from __future__ import annotations

import json
import os
import sys
import time

_COUNTERS = {"rchar": "read", "write_bytes": "written"}
"""Of /proc/PID/io (proc(5)): bytes that passed through read calls, and bytes for the disk."""


def counters(pid: int) -> dict[str, int | None]:
    """Bytes of a process that has ended and that nobody has waited for yet; None where the kernel does not say."""
    found: dict[str, int | None] = dict.fromkeys(_COUNTERS.values())
    try:
        with open(f"/proc/{pid}/io") as lines:  # noqa: PTH123  # pathlib would be the largest part of this process
            for line in lines:
                name, _, value = line.partition(":")
                if name in _COUNTERS:
                    found[_COUNTERS[name]] = int(value)
    except OSError:
        pass
    return found


def main() -> None:
    command = sys.argv[1:]
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    seconds = time.monotonic() - started
    found = counters(pid)
    _, status, usage = os.wait4(pid, 0)
    taken = {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024, **found}
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "taken": taken}))


if __name__ == "__main__":
    main()

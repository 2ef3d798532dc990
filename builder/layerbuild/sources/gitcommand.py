"""The git command, hardened: nothing of the user's or the server's can make it ask, run or stray.

A run sees no configuration but what stands here, runs no hook, asks no question, speaks one
protocol, and checks objects as they arrive. What it says on stderr is kept, bounded and redacted,
for the error's cause.
"""

from __future__ import annotations

import logging
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from layerbuild import addresses
from layerbuild.errors import AccessDenied, NotFound, SourceError, Unreachable
from layerbuild.sources.base import words

_log = logging.getLogger(__name__)
"""Every git and how it ended, at level DEBUG; of its arguments only the command, which holds no address."""

_KEPT = frozenset(
    (
        *("PATH", "TMPDIR", "LD_LIBRARY_PATH"),
        *("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
        *("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    )
)
"""Variables that reach git: where programs are, how to get out, and which certificates to trust."""

# What index-pack would refuse in the commits and tags of real histories, and what no checkout ever
# sees: how people's names, dates and old tools' modes are written. All checks of trees stay on.
_TOLERATED = (
    *("badDate", "badDateOverflow", "badEmail", "badName", "badTimezone", "badTagName", "extraHeaderEntry"),
    *("missingEmail", "missingNameBeforeEmail", "missingSpaceBeforeDate", "missingSpaceBeforeEmail"),
    *("missingTaggerEntry", "multipleAuthors", "nulInCommit", "zeroPaddedDate", "zeroPaddedFilemode"),
)

_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "fetch.fsckObjects=true",
    "fetch.unpackLimit=1",
    "gc.auto=0",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "maintenance.auto=false",
    "protocol.version=2",
    "safe.directory=*",
    *(f"fetch.fsck.{name}=ignore" for name in _TOLERATED),
)

_URL = re.compile(r"https?://[^\s'\"<>]+")

_CAUSES: tuple[tuple[type[SourceError], tuple[str, ...], str], ...] = (
    (
        AccessDenied,
        ("could not read username", "could not read password", "authentication failed", "returned error: 40[13]"),
        "check the address: it must be a public repository; servers answer the same for unknown and private ones",
    ),
    (
        NotFound,
        (
            *("repository .*not found", "not appear to be a git repository", "is this a git repository"),
            *("does not exist", "returned error: 404", "not our ref", "no such remote ref"),
        ),
        "check the address of the repository, and the commit: a rewrite of the history may have removed it",
    ),
    (
        SourceError,
        ("fsck error", "in fsck", "hasdot", "fullpathname", "badtree", "duplicateentries", "gitmodules"),
        "do not use this repository: an honest one has no such tree",
    ),
    (
        Unreachable,
        (
            *("unable to access", "could not resolve", "could not connect", "connection", "timed out"),
            *("early eof", "hung up", "rpc failed", "unexpected disconnect", "returned error: (?:408|429|5..)"),
        ),
        "check the address, the network and the proxy settings (HTTPS_PROXY, NO_PROXY)",
    ),
)
"""Error, what git says (regular expressions), and the way out. The first that fits."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What git said when it failed: the last lines of its stderr, fit to be shown."""

    said: str

    def error(self, message: str) -> SourceError:
        """As the error that it stands for."""
        for kind, patterns, hint in _CAUSES:
            if re.search("|".join(patterns), self.said, re.IGNORECASE):
                return kind(message, cause=self.said, hint=hint)
        return SourceError(message, cause=self.said or "git says nothing", hint="run git by hand to see more")


class Git:
    """Runs git in one bare repository, in the one that a directory lies in, or in none.

    Args:
        environ: of which PATH, HOME, proxies and certificates reach git.
        directory: the bare repository, as a string; None for commands that need none.
        within: a directory inside the working tree of a repository, which git finds by itself.
        protocol: the one transport that may be used: `https`, `http`, `file`; None for none.
        inherit: file descriptors that git holds open for as long as it runs.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        directory: str | None = None,
        *,
        within: str | None = None,
        protocol: str | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        self._environment = _environment(environ, protocol)
        self._inherit = tuple(inherit)
        self._command = ["git", *(part for setting in _CONFIG for part in ("-c", setting))]
        # Without a directory git would look for one around us, and obey its configuration.
        self._command += ["-C", within] if within else [f"--git-dir={directory or '/dev/null'}"]

    def run(self, *arguments: str, limit: int = 64 * 1024 * 1024) -> bytes | Failure:
        """What git prints on stdout, or what it says when it fails.

        Raises:
            SourceError: git is not installed, or prints more than `limit` bytes.
        """
        with self.start(*arguments) as (process, failure):
            assert process.stdout is not None
            output = process.stdout.read(limit + 1)
            if len(output) > limit:
                process.kill()
                raise SourceError(f"git {arguments[0]} says more than {limit} bytes", hint="do not use this repository")
            return failure() if process.wait() else output

    @contextmanager
    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], Failure]]]:
        """A running git, and what gives its failure once it has ended. Killed if it still runs at the end.

        Raises:
            SourceError: git is not installed.
        """
        with tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=self._environment,
                    pass_fds=self._inherit,
                )
            except OSError as error:
                raise SourceError(
                    "git cannot be run", cause=error.strerror, hint="install git 2.31 or newer and put it into PATH"
                ) from None
            started = time.monotonic()
            with process:
                try:
                    yield process, lambda: Failure(said=_tail(stderr))
                finally:
                    if process.poll() is None:
                        process.kill()
            _log.debug("git %s: %d in %.3f s", arguments[0], process.returncode, time.monotonic() - started)


def _environment(environ: Mapping[str, str], protocol: str | None) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k in _KEPT} | {
        "GIT_ALLOW_PROTOCOL": protocol or "",
        "GIT_ASKPASS": "/bin/false",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        # Set, or libcurl asks the user database, and gives what .netrc says by default to whoever asks for a login.
        "HOME": "/dev/null",
        "LC_ALL": "C",
        "SSH_ASKPASS": "/bin/false",
    }


def _tail(stderr: IO[bytes]) -> str:
    """The last lines of git's stderr, those that say something."""
    end = stderr.seek(0, 2)
    stderr.seek(max(0, end - 4096))
    lines = stderr.read().decode(errors="replace").splitlines()
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: "))] or lines
    return words(_URL.sub(lambda match: addresses.redact(match[0]), "; ".join(telling[-6:])), limit=500)

"""Programs that Dockerfiles run: which of their options take a value, and which programs are of no interest here."""

from __future__ import annotations

WGET = frozenset(("O", "P", "o", "a", "t", "T", "U", "e", "w", "Q", "output-document", "directory-prefix", "tries"))
WGET |= frozenset(
    (
        "referer",
        "limit-rate",
        "load-cookies",
        "post-data",
        "execute",
        "header",
        "timeout",
        "user-agent",
        "user",
        "password",
        "waitretry",
        "retry-connrefused-max",
    )
)
CURL = frozenset(("o", "H", "A", "e", "u", "x", "m", "C", "b", "c", "d", "X", "output", "header", "user-agent"))
CURL |= frozenset(("w", "T", "F", "Y", "y", "z", "r", "referer", "proxy", "data", "request", "write-out", "cookie"))
CURL |= frozenset(
    (
        "cacert",
        "range",
        "limit-rate",
        "retry-max-time",
        "speed-limit",
        "speed-time",
        "retry",
        "retry-delay",
        "max-time",
        "connect-timeout",
        "output-dir",
        "url",
        "user",
        "continue-at",
    )
)
ARIA = frozenset(("o", "d", "x", "s", "k", "j", "m", "out", "dir", "header", "split", "checksum", "min-split-size"))
HUB = frozenset(("revision", "local-dir", "include", "exclude", "repo-type", "cache-dir", "token", "max-workers"))
CLONE = frozenset(("b", "branch", "depth", "o", "origin", "j", "jobs", "c", "config", "revision", "filter"))
IDLE = frozenset(
    (
        "rm",
        "echo",
        "set",
        "true",
        ":",
        "ls",
        "cat",
        "pwd",
        "sync",
        "sleep",
        "touch",
        "printf",
        "test",
        "[",
        "ldconfig",
    )
)
"""Commands that leave nothing which an image would miss."""

TOLERANT = frozenset(("wget", "curl", "aria2c", "hf", "huggingface-cli", "mkdir"))
"""Commands of which not every word has to be known: of those that fetch, a login may not be."""

PIP = frozenset(("pip", "pip3", "uv", "poetry"))
"""Commands that install Python packages."""

BASE = frozenset(
    (
        *("apt-get", "apt", "apk", "dnf", "yum", "microdnf", "zypper", "conda", "mamba"),
        *(
            "dpkg",
            "add-apt-repository",
            "update-alternatives",
            "useradd",
            "adduser",
            "groupadd",
            "usermod",
            "locale-gen",
        ),
        *("make", "cmake", "npm", "ln", "chown", "sed", "tar", "unzip", "gpg", "install"),
    )
)

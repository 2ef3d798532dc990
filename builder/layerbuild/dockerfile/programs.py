"""Programs that Dockerfiles run: which of their options take a value, and which programs are of no interest here."""

from __future__ import annotations

WGET = frozenset(("O", "P", "o", "a", "t", "T", "U", "e", "w", "Q", "output-document", "directory-prefix", "tries"))
WGET |= frozenset(("header", "timeout", "user-agent", "user", "password", "waitretry", "retry-connrefused-max"))
CURL = frozenset(("o", "H", "A", "e", "u", "x", "m", "C", "b", "c", "d", "X", "output", "header", "user-agent"))
CURL |= frozenset(("retry", "retry-delay", "max-time", "connect-timeout", "output-dir", "url", "user", "continue-at"))
ARIA = frozenset(("o", "d", "x", "s", "k", "j", "m", "out", "dir", "header", "split", "checksum", "min-split-size"))
HUB = frozenset(("revision", "local-dir", "include", "exclude", "repo-type", "cache-dir", "token", "max-workers"))
CLONE = frozenset(("b", "branch", "depth", "o", "origin", "j", "jobs", "c", "config", "revision", "filter"))
IDLE = frozenset(
    (
        "mkdir",
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

FETCHERS = frozenset(("wget", "curl", "aria2c", "hf", "huggingface-cli"))
"""Commands whose login may be unknown: only what is fetched, and where to, has to be known."""

BASE = frozenset(
    (
        *("apt-get", "apt", "apk", "dnf", "yum", "microdnf", "zypper", "conda", "mamba", "uv", "poetry", "pip", "pip3"),
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

"""How a container starts: the image's config, and the command line that it and its scripts make.

Config: OCI image-spec 1.1, config.md. Scripts are read as text and never run: flags are taken where
they stand, variables where the script or the environment sets them to something plain.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerbuild.audit.filesystem import Filesystem, Node
from layerbuild.audit.limits import hostile

_MAX_SCRIPTS = 16
_MAX_LOOKS = 64
_LARGEST_SCRIPT = 64 * 1024
_MAX_WORDS = 20_000
_MAX_EXPANSIONS = 256 * 1024
"""Characters that variables are replaced by, in all scripts of an image."""

_LONGEST_VALUE = 4096
"""Characters of a variable and of a word that variables are put into: a few lines could double them forever."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ASSIGNMENT = re.compile(r"(?:export\s+|declare\s+)?([A-Za-z_]\w*)\+?=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^}$]*))?\})")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What an image's config says. Everything is text of the right shape."""

    env: Mapping[str, str]
    argv: tuple[str, ...]
    user: str
    workdir: str
    volumes: tuple[str, ...]
    labels: Mapping[str, str]
    history: tuple[str, ...]
    platform: str


def read_runtime(config: Mapping[str, Any], where: str) -> Runtime:
    """The parts of an image config that an audit needs.

    Raises:
        Unreadable: the config has another shape than the specification's.
    """
    runtime = config.get("config") or {}
    history = config.get("history") or []
    if not isinstance(runtime, dict) or not isinstance(history, list):
        raise hostile(where, "its config has another shape than OCI's")
    env = dict(entry.partition("=")[::2] for entry in _texts(runtime, "Env", where))
    return Runtime(
        env=env,
        argv=(*_texts(runtime, "Entrypoint", where), *_texts(runtime, "Cmd", where)),
        user=_text(runtime, "User"),
        workdir=_text(runtime, "WorkingDir") or "/",
        volumes=tuple(v for v in runtime.get("Volumes") or {} if isinstance(v, str)),
        labels={k: v for k, v in _mapping(runtime.get("Labels")).items() if isinstance(v, str)},
        history=tuple(_text(_mapping(item), "created_by") for item in history),
        platform="/".join(filter(None, (_text(config, key) for key in ("os", "architecture", "variant")))),
    )


def _texts(value: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = value.get(key) or []
    # the shell form of old Dockerfiles
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise hostile(where, f"its config's {key} is no list of texts")
    return found


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, kw_only=True)
class Command:
    """The words with which the webui is started, as far as they can be read.

    Attributes:
        words: of the image's command, its scripts and COMMANDLINE_ARGS.
        flags: option -> value; None where it has none, or one that only running would tell.
        env: the config's, and what the scripts export.
        scripts: the scripts that were read.
    """

    words: tuple[str, ...]
    flags: Mapping[str, str | None]
    env: Mapping[str, str]
    scripts: tuple[str, ...]

    def starts(self, name: str) -> bool:
        """Whether a program of that name is started."""
        return any(posixpath.basename(word) == name for word in self.words)


def read_command(runtime: Runtime, files: Filesystem) -> Command:
    """The command line of an image."""
    reader = _Reader(runtime, files)
    reader.words(list(runtime.argv), search=True)
    for name in ("COMMANDLINE_ARGS", "WEBUI_ARGS", "CLI_ARGS"):
        if name in reader.env:
            reader.words(_split(reader.env[name]))
    return Command(words=tuple(reader.found), flags=reader.flags(), env=reader.env, scripts=tuple(reader.scripts))


class _Reader:
    def __init__(self, runtime: Runtime, files: Filesystem) -> None:
        self.env = dict(runtime.env)
        self.found: list[str] = []
        self.scripts: list[str] = []
        self._variables = dict(runtime.env)
        self._files = files
        self._workdir = runtime.workdir
        self._looks = _MAX_LOOKS
        self._expansions = _MAX_EXPANSIONS

    def words(self, words: Sequence[str], *, search: bool = False) -> None:
        """Takes words of a command line; with `search`, a bare name may be a script in PATH."""
        for before, word in zip(["-c" if search else "", *words], words, strict=False):
            if len(self.found) >= _MAX_WORDS:
                return
            self.found.append(word)
            if " " in word:
                # sh -c 'cd /x && python webui.py'
                if before.endswith("c") and before.startswith("-"):
                    self._text(word)
            elif not word.startswith("-") and "=" not in word and (search or "/" in word or word.endswith(".sh")):
                self._script(word)

    def _script(self, word: str) -> None:
        for path in self._candidates(word):
            node = self._files.file(path)
            if node is not None:
                if self._looks > 0:
                    self._looks -= 1
                    self._read_script(path, node)
                return

    def _candidates(self, word: str) -> Iterator[str]:
        if "/" in word:
            yield posixpath.join(self._workdir, word)
            return
        yield posixpath.join(self._workdir, word)
        for directory in self._variables.get("PATH", _PATH).split(":")[:32]:
            yield posixpath.join(directory, word)

    def _read_script(self, path: str, node: Node) -> None:
        path = posixpath.normpath(path)
        if path in self.scripts or len(self.scripts) >= _MAX_SCRIPTS or node.size > _LARGEST_SCRIPT:
            return
        data = self._files.read(node)
        if data is None or b"\0" in data or not (path.endswith(".sh") or data.startswith(b"#!")):
            return
        if b"python" in data.partition(b"\n")[0]:
            return
        self.scripts.append(path)
        self._variables.setdefault("0", path)
        if posixpath.basename(path) == "webui.sh":
            # it reads its settings from there, and starts launch.py
            self._script(posixpath.join(posixpath.dirname(path), "webui-user.sh"))
            self.found.append("launch.py")
            return
        self._text(data.decode("utf-8", "replace"))

    def _text(self, text: str) -> None:
        for line in re.sub(r"\\\n", " ", text).split("\n"):
            assignment = _ASSIGNMENT.match(line.strip())
            tokens = _split(line)
            if assignment and not assignment[2].startswith("(") and len(tokens) <= 3:
                self._assign(line.strip().startswith("export"), assignment[1], _split(assignment[2]))
                continue
            # a variable may hold several words
            plain = [w for token in tokens for w in (_split(self._expanded(token)) if "$" in token else [token])]
            if plain[:1] == ["cd"] and len(plain) > 1 and "$" not in plain[1]:
                self._workdir = posixpath.join(self._workdir, plain[1])
            self.words([word for word in plain if word])

    def _assign(self, exported: bool, name: str, value: Sequence[str]) -> None:
        plain = self._expanded(" ".join(value))[:_LONGEST_VALUE]
        self._variables[name] = plain
        if exported or name in self.env:
            self.env[name] = plain

    def _expanded(self, token: str) -> str:
        """`token` with the variables that are known; those that are not stay as they are."""
        if len(token) > _LONGEST_VALUE or self._expansions < 0:
            return token

        def value(match: re.Match[str]) -> str:
            known = self._variables.get(match[1] or match[2])
            return known if known else match[3] if match[3] is not None else match[0]

        expanded = _VARIABLE.sub(value, token)
        self._expansions -= len(expanded) if expanded != token else 0
        return expanded

    def flags(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for word, following in zip(self.found, [*self.found[1:], ""], strict=False):
            if not word.startswith("--") or " " in word:
                continue
            flag, equals, value = word.partition("=")
            value = value if equals else following
            usable = value and not value.startswith("-") and "$" not in value
            found[flag] = value if usable else found.get(flag)
        return found


def _split(text: str) -> list[str]:
    """Words of a line of shell. Arrays, groups and separators are taken apart, comments left out."""
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars="();&|<>")
        lexer.whitespace_split = True
        return [token for token in lexer if token.strip("();&|<>")]
    except ValueError:
        # a text that goes on in the next line
        return []

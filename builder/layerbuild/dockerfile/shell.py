"""The commands of a RUN that matter here: what fetches, what clones, what moves, and what layerbuild does itself.

Commands are looked at, in the order in which a shell would run them; nothing is run. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from layerbuild.adding.pasted import recognise
from layerbuild.addresses import redact
from layerbuild.dockerfile import programs
from layerbuild.dockerfile.reading import Command, commands, is_known
from layerbuild.dockerfile.showing import shortened, source_shown
from layerbuild.dockerfile.stage import Clone, Download, Remark, Snapshot, Stage, Verdict, absolute
from layerbuild.dockerfile.words import parsed
from layerbuild.errors import LayerbuildError
from layerbuild.sources.base import words as plain_words
from layerbuild.sources.web import checked_address

_SUM = re.compile(r"\b([0-9a-f]{64})\s+\*?(\S+)", re.IGNORECASE)
_PACKAGES = "belongs into the base image, or into a layer of kind python (docs/packages.md)"
_BY_HAND = "layerbuild add what it fetches"
_URL = re.compile(r"https?://", re.IGNORECASE)


class Shell:
    """Goes through the commands of one RUN.

    Args:
        stage: what it changes.
        lines: of the instruction, by their numbers.
        remark: is told what became of each command.
    """

    def __init__(self, stage: Stage, lines: Mapping[int, str], remark: Callable[[Remark], None]) -> None:
        self._stage = stage
        self._text = "\n".join(lines.values())
        self._numbers = list(lines)
        self._at = 0
        self._tell = remark
        self._directory = stage.workdir
        self._handlers: dict[str, Callable[[Sequence[str]], None]] = {
            **{"wget": self._wget, "curl": self._curl, "aria2c": self._aria, "hf": self._hub},
            **{"huggingface-cli": self._hub, "git": self._git, "cd": self._cd, "pushd": self._cd},
            **{"mv": self._mv, "cp": self._cp, "chmod": self._chmod, "rm": self._rm},
            "mkdir": self._mkdir,
        }

    def run(self, value: str) -> None:
        """All commands of an instruction."""
        before: Command | None = None
        for command in commands(value, self._stage.variables):
            self._find(command)
            self._command(command, before)
            before = command

    def _find(self, command: Command) -> None:
        """Goes on to the line that the command begins in."""
        first = self._text.find(command.words[0], self._at)
        if first < 0:
            return
        for many in (3, 2, 1):
            words = map(re.escape, command.words[:many])
            if found := re.compile(r"(?<!\w)" + r"[^\w\n]+".join(words)).search(self._text, first):
                self._at = self._text.rfind("\n", 0, found.start()) + 1
                return

    @property
    def _line(self) -> int:
        """The number of the line that has the command."""
        return self._numbers[self._text.count("\n", 0, self._at)]

    def _command(self, command: Command, before: Command | None) -> None:
        name = posixpath.basename(command.words[0])
        rest = command.words[1:]
        handler = self._handlers.get(name)
        if re.fullmatch(r"python3?(\.\d+)?", name) and command.certain:
            self._python(command)
        elif name == "sha256sum" and command.piped and before is not None:
            self._checked(before)
        elif not command.certain:
            self._left(command.words, f"it runs in a loop or under a condition: {_BY_HAND}")
        elif handler is not None and (name in programs.TOLERANT or all(map(is_known, rest))):
            handler(rest)
        elif handler is not None or not is_known(name):
            self._left(command.words, f"only a shell knows what it means: {_BY_HAND}")
        elif name in programs.PIP:
            self._left(command.words, _PACKAGES)
        elif name in programs.BASE:
            self._left(command.words, "belongs into the base image: it stays in a Dockerfile of the base")
        elif name not in programs.IDLE:
            self._left(command.words, "layerbuild runs nothing: put it into the base, or its result into a files layer")

    # --- what fetches ---------------------------------------------------------------------------------

    def _wget(self, rest: Sequence[str]) -> None:
        line = parsed(rest, programs.WGET)
        target, folder = line.last("O", "output-document"), line.last("P", "directory-prefix")
        # To wget, what -O says lies where it runs.
        folder = None if target is not None else folder
        told = line.has("content-disposition", "trust-server-names")
        self._fetched("wget", rest, line.operands, target, folder, named=told)

    def _curl(self, rest: Sequence[str]) -> None:
        line = parsed(rest, programs.CURL)
        target, folder = line.last("o", "output"), line.last("output-dir")
        if target is None and not line.has("O", "remote-name", "remote-name-all"):
            target = "-"
        told = line.has("J", "remote-header-name")
        self._fetched("curl", rest, [*line.operands, *line.options.get("url", ())], target, folder, named=told)

    def _aria(self, rest: Sequence[str]) -> None:
        line = parsed(rest, programs.ARIA)
        self._fetched("aria2c", rest, line.operands, line.last("o", "out"), line.last("d", "dir"), named=True)

    def _fetched(
        self,
        name: str,
        rest: Sequence[str],
        operands: Sequence[str],
        target: str | None,
        folder: str | None,
        *,
        named: bool,
    ) -> None:
        """Downloads of one command: into `target`, else under the name in the address, or under the server's
        (`named`), which is mostly the same where that has an extension."""
        addresses = [word for word in operands if _URL.match(word)]
        if target == "-" or not addresses or (len(addresses) > 1 and target is not None):
            self._left((name, *rest), "what it fetches goes to another command, or is not told: add it by hand")
            return
        for address in addresses:
            into = target or unquote(posixpath.basename(urlsplit(address).path)) or "download"
            if target is None and named and not posixpath.splitext(into)[1]:
                self._left((name, address), f"the server says what it is called: {_BY_HAND}")
                continue
            self.download(address, absolute(into, absolute(folder or ".", self._directory)), name)

    def download(self, address: str, path: str, name: str) -> None:
        """A file from the web, at a path."""
        what = (name, address)
        try:
            pasted = recognise(address, is_there=lambda _: False)
            if pasted.source.startswith("http"):
                checked_address(pasted.source)
        except LayerbuildError as error:
            self._left(what, error.brief)
            return
        into = posixpath.join(path, posixpath.basename(urlsplit(address).path)) if path.endswith("/") else path
        if pasted.form != "file":
            self._left(what, "this is the address of a page: layerbuild add it by hand")
        elif not is_known(pasted.source + into):
            self._left(what, f"only a shell knows what it means: {_BY_HAND}")
        else:
            self._stage.put(into, Download(source=pasted.source, line=self._line))
            self._say("translated", what, f"{into} comes from {source_shown(pasted.source)}")
            for note in pasted.notes:
                self._left(what, note)

    def _hub(self, rest: Sequence[str]) -> None:
        line = parsed(rest, programs.HUB)
        if line.operands[:1] != ["download"] or len(line.operands) < 2:
            self._say("unnecessary", ("hf", *rest[:1]), "layerbuild reads the token from HF_TOKEN")
            return
        repository, files = line.operands[1], line.operands[2:]
        kind = line.last("repo-type")
        repository = f"{kind}s/{repository}" if kind in ("dataset", "space") else repository
        revision = line.last("revision") or "main"
        folder = line.last("local-dir")
        if not is_known(" ".join((*line.operands, revision, folder or ""))):
            self._left(("hf", *line.operands), f"only a shell knows what it means: {_BY_HAND}")
            return
        what = ("hf", "download", repository, *files)
        if folder is None:
            files = [*files, *line.options.get("include", ()), *(f"!{p}" for p in line.options.get("exclude", ()))]
            source = f"hf://{repository}@{revision.replace('/', '%2F')}"
            self._stage.snapshots.append(Snapshot(source=source, line=self._line, files=tuple(files)))
            self._say("translated", what, "a snapshot in the Hugging Face cache")
        elif not files:
            self._left(what, "which files it takes is not told here: layerbuild add those that you need, one by one")
        else:
            for file in files:
                path = absolute(file, absolute(folder, self._directory))
                source = f"hf://{repository}@{revision.replace('/', '%2F')}/{file}"
                self._stage.put(path, Download(source=source, line=self._line))
                self._say("translated", what, f"{path} comes from {source_shown(source)}")

    # --- git ---------------------------------------------------------------------------------------------

    def _git(self, rest: Sequence[str]) -> None:
        rest, directory = list(rest), self._directory
        while len(rest) > 1 and rest[0] in ("-C", "-c", "--git-dir"):
            directory = absolute(rest[1], directory) if rest[0] == "-C" else directory
            rest = rest[2:]
        verb, rest = (rest[0], rest[1:]) if rest else ("", [])
        if verb == "clone":
            self._clone(rest, directory)
        elif verb in ("reset", "checkout", "switch"):
            self._moved(verb, [word for word in rest if not word.startswith("-")], directory)
        elif verb == "pull":
            self._left(("git", verb), "a commit is pinned instead; layerbuild lock --update moves it")
        elif verb == "submodule":
            self._left(("git", verb, *rest), "say 'submodules: true' in the webui layer, if they are needed")
        else:
            self._say("unnecessary", ("git", verb), "layerbuild fetches the pinned commit by itself")

    def _clone(self, rest: Sequence[str], directory: str) -> None:
        line = parsed(rest, programs.CLONE)
        if not line.operands:
            self._left(("git", "clone", *rest), "it names no repository")
            return
        address = line.operands[0]
        what = ("git", "clone", redact(address) if "://" in address else address)
        try:
            pasted = recognise(address, is_there=lambda _: False)
        except LayerbuildError as error:
            self._left(what, error.message)
            return
        if "@" in urlsplit(address).netloc:
            self._left(what, "it needs a login: clone it beside the project, and say git+file:PATH@REV")
            return
        if pasted.form != "git" and not pasted.source.startswith(("https://", "http://")):
            self._left(what, f"a clone from the Hub is no layer: layerbuild add {plain_words(pasted.source)}")
            return
        # A host that is not known for git is one where somebody clones from it.
        plain = pasted.source.removeprefix("git+").rpartition("@")[0] if pasted.form == "git" else pasted.source
        name = posixpath.basename(plain.rstrip("/")).removesuffix(".git")
        path = absolute(line.operands[1] if len(line.operands) > 1 else name, directory).rstrip("/")
        if not is_known(path):
            self._left(what, f"only a shell knows where it lies: {_BY_HAND}")
            return
        self._stage.put(
            path or "/", Clone(address=plain, line=self._line, revision=line.last("b", "branch", "revision"))
        )
        self._say("translated", what, f"the tree at {path}")

    def _moved(self, verb: str, operands: Sequence[str], directory: str) -> None:
        found = self._stage.clone_at(directory)
        if found is None:
            self._left(("git", verb, *operands), f"nothing was cloned to {directory}")
        elif operands:
            path, clone = found
            self._stage.put(path, replace(clone, revision=operands[0].removeprefix("origin/")))
            self._say("translated", ("git", verb, *operands), f"{path} is at {operands[0]}")

    # --- what moves ---------------------------------------------------------------------------------------

    def _cd(self, rest: Sequence[str]) -> None:
        self._directory = absolute(rest[0] if rest else "~", self._directory)

    def _mv(self, rest: Sequence[str]) -> None:
        self._carry("mv", rest, move=True)

    def _cp(self, rest: Sequence[str]) -> None:
        self._carry("cp", rest, move=False)

    def _carry(self, name: str, rest: Sequence[str], *, move: bool) -> None:
        *sources, target = parsed(rest, ("t",)).operands or [""]
        into = absolute(target, self._directory)
        inside = len(sources) > 1 or self._stage.is_directory(into)
        moved = []
        for source in sources:
            path = absolute(source, self._directory).rstrip("/")
            below = posixpath.basename(path) if inside and not source.endswith("/.") else ""
            moved.append(self._stage.carry(path, posixpath.join(into, below) if below else into, move=move))
        if not moved or not all(moved):
            self._left((name, *rest), "what it moves comes from no line that was translated")

    def _mkdir(self, rest: Sequence[str]) -> None:
        self._stage.directories |= {absolute(word, self._directory).rstrip("/") for word in parsed(rest, "m").operands}

    def _chmod(self, rest: Sequence[str]) -> None:
        mode, *paths = [word for word in rest if not word.startswith("-")] or [""]
        if "x" in mode or any(digit in "1357" for digit in mode[-3:]):
            self._stage.modes |= {absolute(word, self._directory): "0755" for word in paths}
            self._say("translated", ("chmod", *rest), "files of a layer that it names are executable")
        else:
            self._say("unnecessary", ("chmod", *rest), "everybody may read the files of a layer")

    def _rm(self, rest: Sequence[str]) -> None:
        words = [(word, absolute(word.removesuffix("/*"), self._directory)) for word in parsed(rest, ()).operands]
        gone = [word for word, path in words if self._stage.drop(path.rstrip("/"))]
        if gone:
            self._say("unnecessary", ("rm", *gone), "it is in no layer then")

    def _checked(self, before: Command) -> None:
        """`echo HEX FILE | sha256sum -c`: the digest of a download."""
        for digest, file in _SUM.findall(" ".join(before.words)):
            path = absolute(file, self._directory)
            found = self._stage.things.get(path)
            if isinstance(found, Download):
                self._stage.put(path, replace(found, sha256=digest.lower()))
                self._say("translated", ("sha256sum", path), "its digest is declared")

    # --- what layerbuild does -------------------------------------------------------------------------------

    def _python(self, command: Command) -> None:
        text, words = " ".join(command.words), command.words
        checkpoint = parsed(words[1:], ("ckpt",)).last("ckpt")
        if checkpoint is not None:
            self._stage.checkpoint = absolute(checkpoint, self._directory)
        if re.search(r"-m (pip|venv|ensurepip)\b", text):
            self._left(words, _PACKAGES)
        elif re.search(r"\bcache\w*\.py\b|-m \S*cache\b", text):
            self._say(
                "unnecessary", words, "layerbuild computes the hash cache, and the catalog has the files it fetched"
            )
        elif re.search(r"\b(launch|webui)\.py\b|-m launch\b|--exit\b|prepare_environment", text):
            why = "checkouts are layers, and layerbuild computes the caches; packages belong into the base"
            self._say("unnecessary", words, why)
        elif re.search(r"snapshot_download|hf_hub_download|from_pretrained", text):
            self._left(words, "layerbuild runs nothing: layerbuild add hf://ORG/NAME what it downloads")
        else:
            self._left(words, "layerbuild runs nothing: put it into the base, or its result into a files layer")

    # --- words ----------------------------------------------------------------------------------------------

    def _left(self, words: Sequence[str], text: str) -> None:
        self._say("left", words, text)

    def _say(self, verdict: Verdict, words: Sequence[str], text: str) -> None:
        self._tell(Remark(line=self._line, what=shortened(words), verdict=verdict, text=text))

"""The instructions of a Dockerfile, in their order: what each leaves in its stage. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from layerbuild.dockerfile.reading import Instruction, exec_form, expanded, is_known, without_flags, words_of
from layerbuild.dockerfile.shell import Shell
from layerbuild.dockerfile.showing import shortened
from layerbuild.dockerfile.stage import Download, Local, Remark, Stage, Verdict, absolute
from layerbuild.render import has_markup

_SECRET = re.compile(r"token|secret|passw|credential|api_?key|auth|access_key", re.IGNORECASE)
_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?")
_PACKED = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
"""What ADD unpacks."""

_CKPT = re.compile(r"--ckpt[= ]+(\S+)")


@dataclass
class Reader:
    """Goes through a Dockerfile.

    Attributes:
        remarks: what became of each line.
        stages: by their names and numbers.
    """

    remarks: list[Remark] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    _outer: dict[str, str] = field(default_factory=dict)
    _stage: Stage | None = None

    def read(self, instruction: Instruction) -> None:
        """One instruction."""
        handler = getattr(self, f"_{instruction.name.lower()}", None)
        if instruction.name == "FROM":
            self._from(instruction)
        elif instruction.name == "ARG":
            self._arg(instruction)
        elif self._stage is None:
            self._left(instruction, "nothing but ARG may stand before FROM")
        elif instruction.name in _KNOWN and handler is not None:
            handler(instruction, self._stage)
        else:
            self._left(instruction, "a recipe has no such thing")

    def finish(self) -> None:
        """What stays in a stage of which only some files are taken need not be in any base."""
        begins = sorted({line for stage in self.stages.values() for line in stage.lines})
        for at, remark in enumerate(self.remarks):
            begin = max((line for line in begins if line <= remark.line), default=0)
            if remark.verdict == "left" and begin not in self.last.lines and remark.text.startswith("belongs into"):
                self.remarks[at] = replace(remark, verdict="unnecessary", text="this stage only fetched")

    @property
    def last(self) -> Stage:
        """The stage that becomes the image."""
        if self._stage is None:
            raise AssertionError("a Dockerfile without FROM is refused before")
        return self._stage

    def _from(self, instruction: Instruction) -> None:
        flags, value = without_flags(instruction.value)
        words = value.split()
        image = expanded(words[0], self._outer) if words else "scratch"
        name = words[2].lower() if len(words) == 3 and words[1].lower() == "as" else ""
        below = self.stages.get(image.lower())
        line = instruction.line
        self._stage = below.follow(name, line) if below else Stage(image=_reference(image), name=name, lines=(line,))
        if not is_known(image) or has_markup(image):
            self._stage.image = "scratch"
            self._left(instruction, "only the build's arguments tell this base: name it in the recipe")
        platform = expanded(flags.get("platform", ""), self._outer).strip("\"'")
        if _PLATFORM.fullmatch(platform):
            self._stage.platform = platform
        number = len({id(stage) for stage in self.stages.values()})
        self.stages |= {str(number): self._stage, **({name: self._stage} if name else {})}

    def _arg(self, instruction: Instruction) -> None:
        inner = self._stage.variables if self._stage else self._outer
        for word in words_of(instruction.value):
            name, given, value = word.partition("=")
            value = expanded(value, inner) if given else self._outer.get(name, "")
            if given or name in self._outer:
                (self._stage.args if self._stage else self._outer)[name] = value

    def _env(self, instruction: Instruction, stage: Stage) -> None:
        first, _, rest = instruction.value.partition(" ")
        pairs = _pairs(instruction.value) if "=" in first else {first: rest.strip()}
        for name, raw in pairs.items():
            value = expanded(raw, stage.variables)
            if not is_known(value):
                self._left(instruction, f"{name} refers to what the base says: write all of it into config.env")
            elif _SECRET.search(name):
                self._say(
                    instruction, "left", f"{name} may be a secret, and stays out: set it when the container starts"
                )
            else:
                stage.env[name] = value
                self._say(instruction, "translated", f"config.env.{name}")

    def _label(self, instruction: Instruction, stage: Stage) -> None:
        found = {name: expanded(value, stage.variables) for name, value in _pairs(instruction.value).items()}
        if self._is_told(instruction, found.values(), "labels"):
            stage.labels |= found

    def _workdir(self, instruction: Instruction, stage: Stage) -> None:
        said = expanded(instruction.value.strip("\"'"), stage.variables)
        stage.workdir = absolute(said, stage.workdir).rstrip("/") or "/"
        stage.workdir_said = is_known(stage.workdir)
        if not is_known(said):
            self._unknown(instruction, "workdir")

    def _user(self, instruction: Instruction, stage: Stage) -> None:
        user = expanded(instruction.value, stage.variables)
        if self._is_told(instruction, [user], "user"):
            stage.user = user

    def _expose(self, instruction: Instruction, stage: Stage) -> None:
        ports = expanded(instruction.value, stage.variables).split()
        if self._is_told(instruction, ports, "ports"):
            stage.ports += [port if "/" in port else f"{port}/tcp" for port in ports]

    def _volume(self, instruction: Instruction, stage: Stage) -> None:
        words = exec_form(instruction.value) or instruction.value.split()
        volumes = [expanded(word, stage.variables) for word in words]
        if self._is_told(instruction, volumes, "volumes"):
            stage.volumes += [absolute(volume, stage.workdir) for volume in volumes]

    def _stopsignal(self, instruction: Instruction, stage: Stage) -> None:
        signal = expanded(instruction.value, stage.variables)
        if self._is_told(instruction, [signal], "stop_signal"):
            stage.stop_signal = signal

    def _shell(self, instruction: Instruction, stage: Stage) -> None:
        stage.shell = exec_form(instruction.value) or stage.shell
        self._say(instruction, "unnecessary", "no RUN is run")

    def _healthcheck(self, instruction: Instruction, stage: Stage) -> None:
        del stage
        self._left(instruction, "OCI images have no health check: say it where the container is started")

    def _cmd(self, instruction: Instruction, stage: Stage) -> None:
        stage.cmd = self._words(instruction, stage)
        self._say(instruction, "translated", "config.cmd")

    def _entrypoint(self, instruction: Instruction, stage: Stage) -> None:
        stage.entrypoint, stage.cmd = self._words(instruction, stage), None
        self._say(instruction, "translated", "config.entrypoint")

    def _words(self, instruction: Instruction, stage: Stage) -> list[str]:
        words = exec_form(instruction.value)
        found = _CKPT.search(" ".join(words) if words else expanded(instruction.value, stage.variables))
        if found:
            stage.checkpoint = absolute(found[1].strip("\"'"), stage.workdir)
        return words if words is not None else [*stage.shell, instruction.value]

    def _run(self, instruction: Instruction, stage: Stage) -> None:
        value = without_flags(instruction.value)[1]
        Shell(stage, instruction.lines, self.remarks.append).run(value)

    def _copy(self, instruction: Instruction, stage: Stage) -> None:
        flags, value = without_flags(instruction.value)
        words = [expanded(word, stage.variables) for word in exec_form(value) or words_of(value)]
        if len(words) < 2 or not all(map(is_known, words)) or "<<" in value:
            self._left(instruction, "write it as a files layer")
            return
        *sources, target = words
        into = absolute(target, stage.workdir)
        into = into + "/" if len(sources) > 1 and not into.endswith("/") else into
        for source in sources:
            if instruction.name == "ADD" and _PACKED.search(source) and "://" not in source:
                self._left(instruction, "docker unpacks it: put what is in it into a files layer")
            elif "from" in flags:
                self._from_stage(instruction, stage, source, into, flags["from"])
            elif re.match(r"https?://", source, re.IGNORECASE):
                self._added(instruction, stage, source, into, flags)
            else:
                self._local(instruction, stage, source, into, flags.get("chmod"))

    _add = _copy

    def _from_stage(self, instruction: Instruction, stage: Stage, source: str, into: str, name: str) -> None:
        other = self.stages.get(name.lower())
        if other is None:
            self._left(
                instruction, f"files out of an image: layerbuild add oci://{name}/PATH, or put them into the base"
            )
        elif stage.take(other, absolute(source, "/"), _beneath(other, absolute(source, "/"), into)):
            self._say(instruction, "translated", f"{source} of {name} lies at {into}")
        else:
            self._left(instruction, f"what lies at {source} of {name} comes from no line that was translated")

    def _added(self, instruction: Instruction, stage: Stage, source: str, into: str, flags: Mapping[str, str]) -> None:
        shell = Shell(stage, instruction.lines, self.remarks.append)
        if source.rpartition("#")[0].endswith(".git") or source.endswith(".git"):
            shell.run(f"git clone {source.partition('#')[0]} {into}")
            return
        before = set(stage.things)
        shell.download(source, into, "ADD")
        digest = _CHECKSUM.fullmatch(flags.get("checksum", ""))
        for path in set(stage.things) - before:
            thing = stage.things[path]
            if digest and isinstance(thing, Download):
                stage.put(path, Download(source=thing.source, line=thing.line, sha256=digest[1]))

    def _local(self, instruction: Instruction, stage: Stage, source: str, into: str, mode: str | None) -> None:
        if re.search(r"(^|/)cache\w*\.py$", source):
            self._say(instruction, "unnecessary", "layerbuild computes the hash cache")
            return
        name = posixpath.basename(posixpath.normpath(source))
        path = posixpath.join(into, name) if into.endswith("/") and name not in (".", "..", "") else into
        if re.search(r"(^|/)requirements[\w.-]*\.txt$", source):
            self._left(instruction, "belongs into the base image, with the packages that it names")
            return
        mode = mode.zfill(4) if mode is not None and re.fullmatch(r"0?[0-7]{3}", mode) else None
        kept = posixpath.normpath(source.lstrip("/"))
        local = Local(path=kept, line=instruction.line, target=into.rstrip("/") or "/", mode=mode)
        stage.put(path.rstrip("/") or "/", local)

    def _is_told(self, instruction: Instruction, values: Iterable[str], key: str) -> bool:
        """Whether `values` are known, and can be said in the recipe. Says what became of them."""
        known = all(map(is_known, values))
        if known:
            self._say(instruction, "translated", f"config.{key}")
        else:
            self._unknown(instruction, key)
        return known

    def _unknown(self, instruction: Instruction, key: str) -> None:
        self._left(instruction, f"it refers to what the base or the build says: write it into config.{key}")

    def _left(self, instruction: Instruction, text: str) -> None:
        self._say(instruction, "left", text)

    def _say(self, instruction: Instruction, verdict: Verdict, text: str) -> None:
        what = (
            instruction.name
            if instruction.name == "ENV"
            else shortened([instruction.name, *words_of(instruction.value)])
        )
        self.remarks.append(Remark(line=instruction.line, what=what, verdict=verdict, text=text))


_KNOWN = frozenset(
    (
        *("ENV", "LABEL", "WORKDIR", "USER", "EXPOSE", "VOLUME", "STOPSIGNAL", "SHELL", "HEALTHCHECK", "CMD"),
        *("ENTRYPOINT", "RUN", "COPY", "ADD"),
    )
)


def _beneath(stage: Stage, path: str, into: str) -> str:
    """Where COPY puts a path of a stage: a file into a directory, of a directory what lies in it."""
    thing = stage.things.get(path.rstrip("/"))
    name = posixpath.basename(path.rstrip("/"))
    is_file = isinstance(thing, Download) or (isinstance(thing, Local) and "." in name and not path.endswith("/"))
    return posixpath.join(into, name) if is_file and into.endswith("/") else into


def _reference(image: str) -> str:
    """A base with its registry, which docker leaves out for its own."""
    first, slash, _ = image.partition("/")
    if image == "scratch" or (slash and ("." in first or ":" in first or first == "localhost")):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def _pairs(value: str) -> dict[str, str]:
    """`NAME=value` words."""
    return {name: found for name, equals, found in (word.partition("=") for word in words_of(value)) if name and equals}

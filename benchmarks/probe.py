"""What the webui does between its start and its first image, by its own rules, counted and timed.

Runs inside the image, with Python's standard library and `huggingface_hub` only, and prints JSON:

    PYTHONPATH=.peers/hub-new python probe.py --root DIR --release 1.10.1 --checkpoint sd15.safetensors --evict

The steps are those of releases 1.6 to 1.10.1: list the models and their metadata, look up CLIP's files, hash
what is loaded (checkpoint, embeddings), read it into memory, hash and read what the first image uses (Lora,
VAE), and last what `/sdapi/v1/sd-models` needs to name every hash. Nothing is sent anywhere: each connection
that is tried is counted and refused at once, and the waits between retries are counted and not slept. Other
than in the webui, 1.9's database (diskcache) is imitated by one plain SQLite file.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

# Its import takes the same time in every image, and is no part of the look-ups.
from huggingface_hub import errors, hf_hub_download  # type: ignore[import-not-found, unused-ignore]

_CHECKPOINTS = "models/Stable-diffusion"
_CLIP = "openai/clip-vit-large-patch14"
# added_tokens.json does not exist there, and is asked for all the same.
_CLIP_FILES = (
    *("vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "tokenizer_config.json", "config.json"),
)
# The tensor by which the webui takes a checkpoint for SD2; only a trial run of the UNet tells its two sorts apart.
_SD2 = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"


@dataclass
class Step:
    """What one step did. Seconds; bytes."""

    name: str
    seconds: float = 0.0
    hashed: list[str] = field(default_factory=list)
    hashed_bytes: int = 0
    loaded_bytes: int = 0
    headers: int = 0
    trials: int = 0
    asked: int = 0
    requests: int = 0
    waits: float = 0.0


class Cache:
    """The webui's hash cache: `cache.json`, from 1.9 on converted once where there is no directory `cache/`."""

    def __init__(self, data_dir: Path, release: tuple[int, ...]) -> None:
        self._file = data_dir / "cache.json"
        self._sections: dict[str, dict[str, Any]] = {}
        self._database: sqlite3.Connection | None = None
        directory = data_dir / "cache"
        convert = release < (1, 9) or not directory.exists()
        if convert and self._file.exists():
            self._sections = json.loads(self._file.read_text(encoding="utf-8"))
        if release >= (1, 9):
            directory.mkdir(exist_ok=True)
            self._database = sqlite3.connect(directory / "cache.db", isolation_level=None)
            self._open(self._database)

    def get(self, section: str, key: str, file: Path, name: str) -> Any:
        """The value `name` of an entry that is not older than the file, or None."""
        entry = self._sections.get(section, {}).get(key, {})
        stale = file.stat().st_mtime > entry.get("mtime", 0)
        return None if stale else entry.get(name)

    def put(self, section: str, key: str, file: Path, name: str, value: Any) -> None:
        """Keeps a value with the file's mtime."""
        entry = {"mtime": file.stat().st_mtime, name: value}
        self._sections.setdefault(section, {})[key] = entry
        self._keep(section, key, entry)

    def close(self) -> None:
        """Writes what is still to be written."""
        if self._database is not None:
            self._database.close()
        else:
            self._file.write_text(json.dumps(self._sections, indent=4), encoding="utf-8")

    def _open(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA journal_mode=wal")
        database.execute("CREATE TABLE IF NOT EXISTS entry (section, key, value, PRIMARY KEY (section, key))")
        for section, key, value in database.execute("SELECT section, key, value FROM entry").fetchall():
            self._sections.setdefault(section, {})[key] = json.loads(value)
        for section, entries in self._sections.items():
            for key, entry in entries.items():
                self._keep(section, key, entry)

    def _keep(self, section: str, key: str, entry: dict[str, Any]) -> None:
        if self._database is not None:
            row = (section, key, json.dumps(entry))
            self._database.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", row)


class Start:
    """One start of the webui in `root`. Each method does a part of it for a step."""

    def __init__(self, root: Path, release: tuple[int, ...]) -> None:
        self._root = root
        self._release = release
        self._metadata: dict[Path, dict[str, Any]] = {}

    @cached_property
    def cache(self) -> Cache:
        """Opened, and converted, by the step that first needs it."""
        return Cache(self._root, self._release)

    def models(self, folder: str) -> list[Path]:
        """Model files below a directory of the webui, links followed, hidden ones left out."""
        base = self._root / folder
        # Upper-case extensions are listed from 1.8 on.
        pattern = re.compile(r".*\.(safetensors|ckpt|pt)", re.IGNORECASE if self._release >= (1, 8) else 0)
        found = [Path(d) / name for d, _, names in os.walk(base, followlinks=True) for name in names]
        shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(base).parts)]
        return sorted(path for path in shown if pattern.fullmatch(path.name))

    def key(self, file: Path) -> str:
        """The key of a model in the cache."""
        folder = file.relative_to(self._root).parts
        if folder[:2] == ("models", "Stable-diffusion"):
            return "checkpoint/" + "/".join(folder[2:])
        if folder[0] == "embeddings":
            return f"textual_inversion/{file.stem}"
        return "vae" if folder[1] == "VAE" else f"lora/{file.stem}"

    def list_models(self, step: Step) -> None:
        """Metadata of every checkpoint and Lora, out of the cache or out of the file's header."""
        for file in (*self.models(_CHECKPOINTS), *self.models("models/Lora")):
            if file.suffix.lower() != ".safetensors":
                continue
            value = self.cache.get("safetensors-metadata", self.key(file), file, "value")
            if value is None:
                value = _header(file).get("__metadata__", {})
                step.headers += 1
                self.cache.put("safetensors-metadata", self.key(file), file, "value", value)
            self._metadata[file] = value

    def hash(self, step: Step, file: Path) -> None:
        """The file's hash, out of the cache or out of every byte of it."""
        key, addnet = self.key(file), file.suffix.lower() == ".safetensors" and "/models/Lora/" in file.as_posix()
        section = "hashes-addnet" if addnet else "hashes"
        # A Lora may name its own hash.
        known = self._metadata.get(file, {}).get("sshs_model_hash") if addnet else None
        if known or self.cache.get(section, key, file, "sha256"):
            return
        digest = hashlib.sha256()
        step.hashed_bytes += _read(file, digest.update, skip=_header_end(file) if addnet else 0)
        step.hashed.append(file.relative_to(self._root).as_posix())
        self.cache.put(section, key, file, "sha256", digest.hexdigest())

    def load(self, step: Step, file: Path) -> None:
        """Reads a model into memory, which every start does, and takes an SD2 checkpoint without its yaml on trial."""
        step.loaded_bytes += _read(file, lambda _: None)
        if (
            f"/{_CHECKPOINTS}/" in file.as_posix()
            and file.suffix == ".safetensors"
            and not file.with_suffix(".yaml").exists()
        ):
            step.trials += _SD2 in _header(file)


def look_up_clip(step: Step) -> None:
    """Asks for the files of CLIP's tokenizer as transformers does, of the cache that the environment names."""
    for name in _CLIP_FILES:
        before = step.requests
        # A file that is not to be had: the webui goes on without it.
        with contextlib.suppress(errors.EntryNotFoundError, errors.LocalEntryNotFoundError):
            hf_hub_download(_CLIP, name)
        step.asked += step.requests > before


@contextlib.contextmanager
def refusing(step: Step) -> Iterator[None]:
    """Counts and refuses each connection (the look-up of its host's name comes first), and counts waits."""
    connect, look_up, sleep = socket.socket.connect, socket.getaddrinfo, time.sleep

    def refuse_name(*_: Any, **__: Any) -> NoReturn:
        step.requests += 1
        raise socket.gaierror(socket.EAI_AGAIN, "no network in this measurement")

    def refuse_connection(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        step.requests += 1
        raise OSError(errno.ENETUNREACH, "no network in this measurement")

    def wait(seconds: Any) -> None:
        step.waits += seconds

    socket.socket.connect = refuse_connection  # type: ignore[method-assign, assignment]
    socket.getaddrinfo, time.sleep = refuse_name, wait
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
        socket.getaddrinfo, time.sleep = look_up, sleep


def probe(root: Path, release: tuple[int, ...], checkpoint: str) -> list[Step]:
    """Every step of a start that loads `checkpoint` (its path below models/Stable-diffusion)."""
    start = Start(root, release)
    loaded = root / _CHECKPOINTS / checkpoint
    embeddings = start.models("embeddings")
    used = [*start.models("models/Lora"), *start.models("models/VAE")]
    others = [file for file in start.models(_CHECKPOINTS) if file != loaded]
    work = {
        "list models and their metadata": start.list_models,
        "look up CLIP's files": look_up_clip,
        "hash the checkpoint": _each(start.hash, [loaded]),
        "read the checkpoint": _each(start.load, [loaded]),
        "hash the embeddings": _each(start.hash, embeddings),
        "read the embeddings": _each(start.load, embeddings),
        "hash Lora and VAE": _each(start.hash, used),
        "read Lora and VAE": _each(start.load, used),
        "hash the other checkpoints": _each(start.hash, others),
        "read the other checkpoints": _each(start.load, others),
    }
    steps = []
    for name, do in work.items():
        step = Step(name)
        with refusing(step):
            started = time.perf_counter()
            do(step)
            step.seconds = time.perf_counter() - started
        steps.append(step)
    start.cache.close()
    return steps


def _each(work: Callable[[Step, Path], None], files: list[Path]) -> Callable[[Step], None]:
    def do(step: Step) -> None:
        for file in files:
            work(step, file)

    return do


def evict(root: Path) -> None:
    """Drops the models' pages from the page cache, so that the start reads them from the disk."""
    for folder in ("models", "embeddings"):
        for directory, _, names in os.walk(root / folder, followlinks=True):
            for name in names:
                with (Path(directory) / name).open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _header_end(file: Path) -> int:
    with file.open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def _header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file that this benchmark wrote."""
    with file.open("rb") as stream:
        value: dict[str, Any] = json.loads(stream.read(_header_end(file))[8:])
    return value


def _read(file: Path, use: Callable[[memoryview], None], skip: int = 0) -> int:
    """Feeds a file to `use` in blocks of 1 MiB, the webui's own size; gives the bytes read."""
    total, view = 0, memoryview(bytearray(1024 * 1024))
    with file.open("rb", buffering=0) as stream:
        stream.seek(skip)
        while count := stream.readinto(view):
            use(view[:count])
            total += count
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="directory of the webui")
    parser.add_argument("--release", default="1.10.1")
    parser.add_argument("--checkpoint", required=True, help="the one that is loaded")
    parser.add_argument("--evict", action="store_true", help="drop the models from the page cache first")
    arguments = parser.parse_args()
    if arguments.evict:
        evict(arguments.root)
    release = tuple(int(part) for part in arguments.release.split("."))
    print(json.dumps([asdict(step) for step in probe(arguments.root, release, arguments.checkpoint)]))


if __name__ == "__main__":
    main()

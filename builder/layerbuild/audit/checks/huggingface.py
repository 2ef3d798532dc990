"""Look-ups in the Hugging Face cache that would miss, break, or go to the network."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from layerbuild.audit.costs import HF_HEAD, HF_MISS, HF_ONLINE
from layerbuild.audit.filesystem import Node
from layerbuild.audit.findings import Cost, Finding
from layerbuild.audit.users import account
from layerbuild.audit.view import ImageView

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ON = ("1", "ON", "YES", "TRUE")
_REPOSITORY = re.compile(r"(?:models|datasets|spaces)--")
_STRAY = ("trees", "xet", ".locks", "CACHEDIR.TAG")
_MOST_PATHS = 20


@dataclass(frozen=True, kw_only=True)
class Repository:
    """What the webui asks of one repository. `absent` does not exist there and is asked for all the same."""

    name: str
    purpose: str
    files: tuple[str, ...]
    absent: tuple[str, ...] = ()
    layer: str = ""

    @property
    def folder(self) -> str:
        """Its directory in the cache."""
        return "models--" + self.name.replace("/", "--")


CLIP = Repository(
    name="openai/clip-vit-large-patch14",
    purpose="SD1, SDXL and SD3 checkpoints",
    files=("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "config.json"),
    absent=("added_tokens.json",),
    layer="clip-l14",
)
T5 = Repository(
    name="google/t5-v1_1-xxl",
    purpose="SD3 checkpoints",
    # tokenizer.json is read where there is one
    files=("spiece.model", "special_tokens_map.json", "tokenizer_config.json"),
    layer="t5-v1_1-xxl-tokenizer",
)
BERT = Repository(
    name="bert-base-uncased",
    purpose="the interrogator",
    files=("vocab.txt", "tokenizer_config.json", "config.json"),
    layer="bert-base-uncased",
)


def check(view: ImageView) -> Iterator[Finding]:
    """Repositories by the models that the image holds, then what is wrong with the cache as a whole."""
    if view.webui is None:
        return
    hub = _hub(view)
    offline = _is_on(view, "HF_HUB_OFFLINE")
    for repository in _needed(view):
        yield from _lookups(view, hub, repository, offline)
    if not offline:
        yield _online(view)
    yield from _elsewhere(view, hub)
    for folder in view.files.names(hub):
        if _REPOSITORY.match(folder):
            yield from _broken(view, f"{hub}/{folder}")
    yield from _strays(view, hub)


def _hub(view: ImageView) -> str:
    """Where clients look: huggingface_hub's `constants.py`."""
    env = view.command.env
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if env.get(name):
            return posixpath.normpath(env[name])
    user = account(view)
    home = env.get("HOME") or (user.home if user else "/root")
    cache = env.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return posixpath.normpath(f"{env.get('HF_HOME') or f'{cache}/huggingface'}/hub")


def _is_on(view: ImageView, name: str) -> bool:
    return view.command.env.get(name, "").upper() in _ON


def _needed(view: ImageView) -> list[Repository]:
    checkpoints = view.of_type("checkpoint")
    kinds = {view.architecture(model) for model in checkpoints}
    found = []
    # an image without checkpoints gets one later, and most need it
    if not checkpoints or kinds - {"sd2", "sdxl-refiner"}:
        found.append(CLIP)
    if "sd3" in kinds and view.webui and view.webui.since(1, 10):
        found.append(T5)
    if view.webui and any(name.endswith(".pth") for name in view.files.names(f"{view.webui.models_dir}/BLIP")):
        found.append(BERT)
    return found


def _lookups(view: ImageView, hub: str, repository: Repository, offline: bool) -> Iterator[Finding]:
    root = f"{hub}/{repository.folder}"
    layer = f"add the catalog layer {repository.layer}"
    snapshot = _snapshot(view, root)
    if snapshot is None:
        if not view.files.file(f"{root}/refs/main") or not view.files.is_directory(f"{root}/snapshots"):
            yield _absent(root, repository, offline, layer)
        return
    missing = [name for name in repository.files if not view.files.file(f"{root}/snapshots/{snapshot}/{name}")]
    if missing:
        seconds = HF_MISS * len(missing) if not offline else 0.0
        yield Finding(
            id="hf-file-missing",
            severity="error",
            paths=(*(f"{root}/snapshots/{snapshot}/{name}" for name in missing),),
            what=f"{repository.purpose} need these files of {repository.name}: {_consequence(offline)}",
            cost=Cost(seconds=seconds),
            hint=layer,
        )
    for name in repository.absent:
        marked = view.files.file(f"{root}/.no_exist/{snapshot}/{name}")
        if not marked and not view.files.file(f"{root}/snapshots/{snapshot}/{name}"):
            yield Finding(
                id="hf-no-marker",
                severity="info" if offline else "warning",
                paths=(f"{root}/.no_exist/{snapshot}/{name}",),
                what=f"{name} does not exist in {repository.name} and is asked for; nothing marks it as absent",
                cost=Cost(seconds=0.0 if offline else HF_MISS),
                hint=f"add an empty file there (in layerbuild: 'absent: [{name}]')",
            )


def _snapshot(view: ImageView, root: str) -> str | None:
    """The commit that the name `main` leads to."""
    node = view.files.file(f"{root}/refs/main")
    text = (view.files.read(node, length=64) or b"").decode("ascii", "replace") if node else ""
    return text if _COMMIT.fullmatch(text) and view.files.is_directory(f"{root}/snapshots/{text}") else None


def _absent(root: str, repository: Repository, offline: bool, hint: str) -> Finding:
    return Finding(
        id="hf-repository-missing",
        severity="error",
        paths=(root,),
        what=f"{repository.purpose} need {repository.name}, which is not in the cache: {_consequence(offline)}",
        cost=Cost(seconds=0.0 if offline else HF_MISS * len(repository.files)),
        hint=hint,
    )


def _consequence(offline: bool) -> str:
    if offline:
        return "with HF_HUB_OFFLINE=1 the start fails"
    return "each is asked of the Hub at start, and without network the start fails after long waits"


def _online(view: ImageView) -> Finding:
    other = (
        " (TRANSFORMERS_OFFLINE alone leaves huggingface_hub online)" if _is_on(view, "TRANSFORMERS_OFFLINE") else ""
    )
    return Finding(
        id="hf-online",
        severity="warning",
        what=f"HF_HUB_OFFLINE=1 is not set: the Hub is asked about files that are there{other}",
        cost=Cost(seconds=HF_ONLINE),
        hint="set HF_HUB_OFFLINE=1 in the image's environment",
    )


def _elsewhere(view: ImageView, hub: str) -> Iterator[Finding]:
    """Caches that no client looks into."""
    resolved = view.files.resolve(hub)
    used = resolved[0] if resolved else hub
    others = {
        posixpath.dirname(path)
        for path, node in view.files.everything()
        if node.type == "directory"
        and _REPOSITORY.match(posixpath.basename(path))
        # a repository, and no folder of lock files
        and "snapshots" in node.children
    }
    for other in sorted(others - {used}):
        yield Finding(
            id="hf-hub-elsewhere",
            severity="warning",
            paths=(other,),
            what=f"a Hugging Face cache lies here, and clients look into {hub}",
            hint="set HF_HOME to the directory above 'hub', or move the cache",
        )


def _broken(view: ImageView, root: str) -> Iterator[Finding]:
    files = view.files
    for name in files.names(f"{root}/refs"):
        node = files.file(f"{root}/refs/{name}")
        text = (files.read(node, length=min(node.size, 256)) if node else b"") or b""
        if node and not _COMMIT.fullmatch(text.decode("ascii", "replace")):
            newline = " (it ends in a newline)" if text.endswith(b"\n") else ""
            yield Finding(
                id="hf-ref-broken",
                severity="error",
                paths=(f"{root}/refs/{name}",),
                what=f"the ref is not a bare 40-digit commit{newline}: every look-up by name misses",
                cost=Cost(seconds=HF_MISS),
                hint="write the commit without a newline: printf %s COMMIT",
            )
        elif node and not files.is_directory(f"{root}/snapshots/{text.decode()}"):
            yield Finding(
                id="hf-ref-dangling",
                severity="error",
                paths=(f"{root}/refs/{name}",),
                what="the ref names a commit without a snapshot: every look-up by that name misses",
                cost=Cost(seconds=HF_MISS),
                hint="put the snapshot of that commit into the cache, or correct the ref",
            )
    dangling = [
        path for path, node in _below(view, f"{root}/snapshots") if node.type == "symlink" and not files.file(path)
    ]
    if dangling:
        yield Finding(
            id="hf-link-dangling",
            severity="error",
            paths=(*dangling[:_MOST_PATHS],),
            what=f"{len(dangling)} files of a snapshot are links that lead nowhere: they are as good as absent",
            cost=Cost(seconds=HF_MISS * len(dangling)),
            hint="copy the blobs, too, or a snapshot of plain files (COPY follows no links)",
        )


def _below(view: ImageView, path: str) -> Iterator[tuple[str, Node]]:
    """Every path below a directory; links to directories are not followed."""
    found = view.files.resolve(path)
    stack = [(path, found[1])] if found else []
    while stack:
        where, node = stack.pop()
        for name, child in sorted(node.children.items()):
            yield f"{where}/{name}", child
            stack.append((f"{where}/{name}", child))


def _strays(view: ImageView, hub: str) -> Iterator[Finding]:
    names = set(view.files.names(hub))
    if any(_REPOSITORY.match(name) for name in names) and "version.txt" not in names:
        yield Finding(
            id="hf-no-version",
            severity="warning",
            paths=(f"{hub}/version.txt",),
            what="without it transformers 4.25 to 4.41 migrate the cache and write the file at each start",
            cost=Cost(seconds=HF_HEAD),
            hint="add the file with the one character 1",
        )
    found = [path for path, _ in _below(view, hub) if posixpath.basename(path) in _STRAY or path.endswith(".lock")]
    trees = [path for path in found if posixpath.basename(path) == "trees"]
    if found:
        yield Finding(
            id="hf-stray",
            severity="warning" if trees else "info",
            paths=(*found[:_MOST_PATHS],),
            what="the cache holds what only a running client needs"
            + (": with 'trees' of a partial snapshot, huggingface_hub 2 refuses the snapshot" if trees else ""),
            hint="leave blobs, refs, snapshots and .no_exist, and remove the rest",
        )

"""Models that the webui takes for one another or runs a trial on, and a cache that it cannot write."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from layerbuild.audit.costs import SD2_TRIAL, hashing
from layerbuild.audit.filesystem import Node
from layerbuild.audit.findings import Cost, Finding
from layerbuild.audit.users import Account, account
from layerbuild.audit.view import ImageView
from layerbuild.webui.hashcache import collisions


def check(view: ImageView) -> Iterator[Finding]:
    """Colliding keys, several VAEs, SD2 without its configuration, a cache directory that cannot be made."""
    if view.webui is None:
        yield Finding(
            id="no-webui",
            severity="warning",
            what="no webui was found (webui.py beside modules/): nothing about models and their caches was checked",
            hint="audit the image that a worker is started from",
        )
        return
    for one, other, key in collisions((model.placed for model in view.models), view.webui.target):
        yield Finding(
            id="keys-collide",
            severity="error",
            paths=(
                one.path,
                other.path,
            ),
            what=f"both are {key!r} to the webui: they share one entry, and one may be loaded for the other",
            hint="rename one of them",
        )
    yield from _vaes(view)
    for model in view.of_type("checkpoint"):
        if view.architecture(model) == "sd2" and not view.files.file(f"{_stem(model.placed.path)}.yaml"):
            yield Finding(
                id="sd2-without-yaml",
                severity="warning",
                paths=(model.placed.path,),
                what="an SD2 checkpoint without its .yaml: a trial run of the UNet tells which one at each load",
                cost=Cost(seconds=SD2_TRIAL),
                hint=f"put v2-inference.yaml or v2-inference-v.yaml there as {_stem(model.placed.path)}.yaml",
            )
    yield from _writable(view)


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _vaes(view: ImageView) -> Iterator[Finding]:
    vaes = view.of_type("vae")
    if view.webui is None or not view.webui.since(1, 6) or len(vaes) < 2:
        return
    largest = max(vaes, key=lambda model: model.node.size)
    yield Finding(
        id="several-vaes",
        severity="warning",
        paths=(*(model.placed.path for model in vaes),),
        what=f"{len(vaes)} VAEs share the one key 'vae' of the hash cache: at most one can have its entry",
        cost=hashing(largest.node.size, "use"),
        hint="keep one VAE in the image, or accept that the first one that is used is hashed",
    )


def _writable(view: ImageView) -> Iterator[Finding]:
    webui, user = view.webui, account(view)
    if webui is None or webui.cache_dir is None or user is None or user.uid == 0:
        return
    place = webui.cache_dir
    while view.files.resolve(place) is None:
        place = posixpath.dirname(place)
    found = view.files.resolve(place)
    volumes = [volume.rstrip("/") for volume in view.runtime.volumes]
    below = any(f"{webui.cache_dir}/".startswith(f"{volume}/") for volume in volumes)
    if found is not None and not below and not _may_write(found[1], user):
        yield Finding(
            id="cache-not-writable",
            severity="error",
            paths=(
                webui.cache_dir,
                place,
            ),
            what=f"uid {user.uid}, as which the image runs, cannot make it: webui 1.9 and newer then list no models",
            hint="set SD_WEBUI_CACHE_DIR to a new child of a writable directory, or give the directory to the user",
        )


def _may_write(node: Node, user: Account) -> bool:
    if node.uid == user.uid:
        return bool(node.mode & 0o300 == 0o300)
    if node.gid == user.gid:
        return bool(node.mode & 0o030 == 0o030)
    return bool(node.mode & 0o003 == 0o003)

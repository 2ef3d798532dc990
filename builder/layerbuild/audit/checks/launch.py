"""What the way of starting costs: launch.py's git, pip and torch, and checkouts that it would repair."""

from __future__ import annotations

from collections.abc import Iterator

from layerbuild.audit.costs import GIT_FETCH, PREPARE
from layerbuild.audit.findings import Cost, Finding
from layerbuild.audit.view import ImageView

_WAY_OUT = "start 'python webui.py', or pass --skip-prepare-environment (1.3 and newer)"
_CHECKOUT = "repositories/stable-diffusion-stability-ai"
_PROOF = "ldm/models/diffusion/ddpm.py"
"""What the webui asserts to be there when it is imported (modules/paths.py)."""


def check(view: ImageView) -> Iterator[Finding]:
    """launch.py, and what lies below repositories/."""
    if view.webui is None:
        return
    root, files = view.webui.root, view.files
    proof = f"{root}/{_CHECKOUT}/{_PROOF}"
    if view.webui.flavor == "a1111" and files.file(f"{root}/modules/paths.py") and not files.file(proof):
        yield Finding(
            id="checkout-missing",
            severity="error",
            paths=(proof,),
            what="the webui asserts at import that this file is there: it does not start without a fetch",
            cost=Cost(seconds=GIT_FETCH),
            hint="add the checkouts below repositories/ (in layerbuild: a webui layer with 'repositories')",
        )
    skipped = "--skip-prepare-environment" in view.command.flags and view.webui.since(1, 3)
    if skipped or not view.command.starts("launch.py"):
        return
    bare = [
        f"{root}/repositories/{name}"
        for name in files.names(f"{root}/repositories")
        if files.is_directory(f"{root}/repositories/{name}")
        and files.resolve(f"{root}/repositories/{name}/.git") is None
    ]
    if bare:
        yield Finding(
            id="checkout-without-git",
            severity="error",
            paths=(*bare,),
            what="launch.py fetches or repairs every checkout without .git at start",
            cost=Cost(seconds=GIT_FETCH * len(bare)),
            hint=_WAY_OUT,
        )
    pip = "" if "--skip-install" in view.command.flags else ", pip"
    torch = "" if "--skip-torch-cuda-test" in view.command.flags else ", a torch of its own"
    yield Finding(
        id="launch-prepares",
        severity="warning",
        paths=(*view.command.scripts,),
        what=f"launch.py runs git{pip}{torch} before the webui at each start",
        cost=Cost(seconds=PREPARE if pip and torch else PREPARE / 2),
        hint=_WAY_OUT,
    )

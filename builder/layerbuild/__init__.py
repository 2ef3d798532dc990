"""layerbuild: reproducible, content-addressed OCI layers for Stable Diffusion webui images.

For programs: `layerbuild.load(DIR)` gives a `Project`; its methods do what the commands do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerbuild.api.locking import LockCheck, LockOutcome
    from layerbuild.api.making import BuildOutcome, PushOutcome
    from layerbuild.api.merging import TakenOver
    from layerbuild.api.options import LockOptions, MakeOptions
    from layerbuild.api.project import Project, load
    from layerbuild.errors import LayerbuildError
    from layerbuild.plan import Plan
    from layerbuild.progress import Progress

__version__ = "0.1.0"

_PLACES = {
    "BuildOutcome": "api.making",
    "LayerbuildError": "errors",
    "LockCheck": "api.locking",
    "LockOptions": "api.options",
    "LockOutcome": "api.locking",
    "MakeOptions": "api.options",
    "Plan": "plan",
    "Progress": "progress",
    "Project": "api.project",
    "PushOutcome": "api.making",
    "TakenOver": "api.merging",
    "load": "api.project",
}

__all__ = [
    "BuildOutcome",
    "LayerbuildError",
    "LockCheck",
    "LockOptions",
    "LockOutcome",
    "MakeOptions",
    "Plan",
    "Progress",
    "Project",
    "PushOutcome",
    "TakenOver",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for (PEP 562): `layerbuild --help` needs none of it.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"layerbuild.{_PLACES[name]}"), name)

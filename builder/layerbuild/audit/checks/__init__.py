"""The checks. Each takes an `ImageView` and gives findings; what the image holds decides which speak."""

from __future__ import annotations

from layerbuild.audit.checks import (
    bytecode,
    extensions,
    fetched,
    hashcache,
    huggingface,
    launch,
    layers,
    listing,
    secrets,
)
from layerbuild.audit.findings import Finding, worst_first
from layerbuild.audit.view import ImageView

_CHECKS = (
    hashcache.check,
    listing.check,
    huggingface.check,
    fetched.check,
    launch.check,
    extensions.check,
    bytecode.check,
    layers.check,
    secrets.check,
)


def run(view: ImageView) -> list[Finding]:
    """Every finding of every check, the worst first."""
    return worst_first(finding for check in _CHECKS for finding in check(view))

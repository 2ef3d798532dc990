"""Names of images and of registries, by Docker's rules and the grammar of the distribution-spec.

Splitting a name is left to oras; what it lets through is held against the grammar here, because a
name ends up in a URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from layerbuild import wire
from layerbuild.errors import UsageError

DOCKER_HUB = "docker.io"
"""Docker Hub as people write it. Its traffic goes to another host: see `api_host`."""

_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
_HUB_API = "registry-1.docker.io"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
# distribution-spec 1.1, "Pulling manifests"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_NAME = 255


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image in a registry: `HOST/REPOSITORY[:TAG][@DIGEST]`. At least one of the last two is set.

    Attributes:
        host: lower case, with its port where one was written; `docker.io` for Docker Hub.
        repository: the full name on that host, `library/` included.
        tag: as written, `latest` where neither tag nor digest was.
        digest: `sha256:<hex>`; when it is set, it says which manifest is meant.
    """

    host: str
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 digest (image-spec 1.1, descriptor.md), the one kind used here."""
    return _DIGEST.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether `text` is a host name or address, with or without a port."""
    return _HOST.fullmatch(text) is not None and len(text) <= _LONGEST_NAME


def looks_like_host(text: str) -> bool:
    """Docker's rule: the first component of a name is a host if it has a `.` or `:`, or is `localhost`."""
    return "." in text or ":" in text or text == "localhost"


def normal_host(host: str) -> str:
    """`host` in lower case, and every name of Docker Hub as `docker.io`."""
    host = host.lower()
    return DOCKER_HUB if host in _HUB_NAMES else host


def api_host(host: str) -> str:
    """The host that requests go to."""
    return _HUB_API if host in _HUB_NAMES else host


def is_loopback(host: str) -> bool:
    """Whether `host` (with or without a port) is this machine: localhost, 127.0.0.0/8 or [::1]."""
    return wire.is_loopback(urlsplit(f"//{host}").hostname or "")


def check_repository(repository: str, *, where: str) -> str:
    """`repository`, if a registry may have one of that name.

    Raises:
        UsageError: the grammar of distribution-spec 1.1 does not allow it.
    """
    if len(repository) > _LONGEST_NAME or not _REPOSITORY.fullmatch(repository):
        raise UsageError(
            f"{repository[:200]!r} cannot be the name of a repository (in {where[:200]!r})",
            cause="a name has lower-case letters and digits, separated by '.', '_', '__', '-' or '/', "
            f"and at most {_LONGEST_NAME} of them in all",
            hint="use such a name, for example acme/a1111-sd15",
        )
    return repository


def check_tag(tag: str, *, where: str) -> str:
    """`tag`, if an image may have it.

    Raises:
        UsageError: the grammar of distribution-spec 1.1 does not allow it.
    """
    if not _TAG.fullmatch(tag):
        raise UsageError(
            f"{tag[:200]!r} cannot be a tag (in {where[:200]!r})",
            cause="a tag has up to 128 letters, digits, '_', '.' and '-', and does not begin with '.' or '-'",
            hint="use such a tag, for example 1.10.1",
        )
    return tag


def parse_reference(text: str) -> Reference:
    """Reads the name of an image as Docker does.

    Args:
        text: `[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:HEX]`. Without a host it is on Docker Hub, and
            there a name of one component is below `library/`.

    Raises:
        UsageError: `text` is no such name.
    """
    host, repository, tag, digest = _split(text)
    host = normal_host(host)
    if not is_host(host):
        raise _nonsense(text, f"{host[:200]!r} is not a host")
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    check_repository(repository, where=text)
    if tag is not None:
        check_tag(tag, where=text)
    if digest is not None and not is_digest(digest):
        raise _nonsense(text, "what follows the '@' is not sha256: and 64 lower-case hex digits")
    if tag is None and digest is None:
        tag = "latest"
    return Reference(host=host, repository=repository, tag=tag, digest=digest)


def _split(text: str) -> tuple[str, str, str | None, str | None]:
    from oras.container import Container  # noqa: PLC0415  # slow to import, and not always needed

    if "://" in text:
        raise _nonsense(text, "the name of an image has no scheme")
    if len(text) > 2 * _LONGEST_NAME or not text.isascii() or not text.isprintable():
        raise _nonsense(text, "it is too long, or has characters that no name has")
    try:
        parts = Container(text, registry=DOCKER_HUB)
    except ValueError:
        raise _nonsense(text, "it is not of the form HOST/REPOSITORY:TAG") from None
    host: str = parts.registry
    repository: str = parts.api_prefix
    digest: str | None = parts.digest
    rest = text.partition("@")[0]
    # oras fills in `latest` and cannot tell whether it was written
    tag: str | None = parts.tag if rest.endswith(f":{parts.tag}") else None
    # oras knows a host by its '.' or ':' alone, and searches where it should match
    if repository.startswith("localhost/"):
        host, _, repository = repository.partition("/")
    written = f"{repository}{f':{tag}' if tag else ''}{f'@{digest}' if digest else ''}"
    if text not in (written, f"{host}/{written}"):
        raise _nonsense(text, "it is not of the form HOST/REPOSITORY:TAG")
    return host, repository, tag, digest


def _nonsense(text: str, cause: str) -> UsageError:
    return UsageError(
        f"{text[:200]!r} is not the name of an image",
        cause=cause,
        hint="write it like docker.io/acme/base:1.0 or registry.example.com/acme/base@sha256:…",
    )

"""The Hugging Face Hub's two endpoints that are needed: a revision's listing, and a file's bytes.

Works against `HF_ENDPOINT`, so also against mirrors. The token goes to that origin only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from layerbuild import paths
from layerbuild.errors import AccessDenied, NotFound, SourceError
from layerbuild.model import Content
from layerbuild.sources.base import Context, is_hex, is_size, words
from layerbuild.sources.endpoints import confidential, endpoint, plausible_token
from layerbuild.sources.transfer import Remote, document, refusal

DEFAULT_ENDPOINT = "https://huggingface.co"

_LARGEST_LISTING = 64 * 1024 * 1024
_LARGEST_TOKEN = 4096


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the Hub. `type` is `models` or `datasets`, as in the API's addresses."""

    type: str
    name: str

    @property
    def path(self) -> str:
        """Where it is below the endpoint; also its name in `hf://` addresses."""
        return self.name if self.type == "models" else f"{self.type}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What a revision holds: every file by its path, nothing left out."""

    commit: str
    files: Mapping[str, Content]


class Hub:
    """A Hub as one user sees it. Endpoint and token come from the context's environment."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self.endpoint = endpoint(context.environ, "HF_ENDPOINT", DEFAULT_ENDPOINT, what="a Hub")
        self._token = _token(context.environ) if confidential(self.endpoint) else None

    def revision(self, repository: Repository, revision: str) -> Revision:
        """The commit and files of a branch, tag or commit, from
        `GET /api/TYPE/NAME/revision/REV?blobs=true`.

        Raises:
            NotFound, AccessDenied, Unreachable: the Hub says so, or nothing.
            SourceError: its answer makes no sense, or names an unsafe path.
        """
        what = f"hf://{repository.path}@{revision}"
        url = f"{self.endpoint}/api/{repository.type}/{repository.name}/revision/{quote(revision, safe='')}?blobs=true"
        body = document(self._remote(repository, url, what, None), limit=_LARGEST_LISTING)
        return _parse(body, what, revision)

    def file(self, repository: Repository, commit: str, path: str, size: int | None) -> Remote:
        """The bytes of one file, at `/NAME/resolve/COMMIT/PATH`."""
        what = f"hf://{repository.path}@{commit}/{path}"
        url = f"{self.endpoint}/{repository.path}/resolve/{commit}/{quote(path)}"
        return self._remote(repository, url, what, size)

    def _remote(self, repository: Repository, url: str, what: str, size: int | None) -> Remote:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        check = partial(self._check, repository, what)
        return Remote(client=self._client, url=url, what=what, check=check, headers=headers, size=size)

    def _check(self, repository: Repository, what: str, response: requests.Response) -> None:
        error = refusal(response, what)
        if error is None:
            return
        code = response.headers.get("X-Error-Code", "")
        said = words(response.headers.get("X-Error-Message", ""))
        cause = f"the Hub answered {response.status_code}" + (f": {said or code}" if said or code else "")
        page = f"{self.endpoint}/{repository.path}"
        if code == "GatedRepo":
            hint = f"accept its licence at {page}, then set HF_TOKEN to a token of that account"
            raise AccessDenied(f"hf://{repository.path} is gated", cause=cause, hint=hint)
        if code == "RevisionNotFound":
            raise NotFound(f"{what}: there is no such revision", cause=cause, hint=f"look at {page}/commits")
        if code == "EntryNotFound":
            raise NotFound(f"{what}: there is no such file", cause=cause, hint=f"look at {page}/tree/main")
        if code == "RepoNotFound" or response.status_code == 401:
            # The Hub gives one answer for both, so that nobody can guess the names of private ones.
            kind = AccessDenied if response.status_code in (401, 403) else NotFound
            raise kind(f"hf://{repository.path} is unknown or private", cause=cause, hint=self._login_hint())
        raise type(error)(error.message, cause=cause, hint=error.hint)

    def _login_hint(self) -> str:
        if self._token:
            return "check the name, and that the account of the token in use may read it"
        if not confidential(self.endpoint):
            return f"check the name; no token is sent to {self.endpoint}, because it is plain HTTP"
        return "check the name; if it is private, set HF_TOKEN to a token that may read it"


def _token(environ: Mapping[str, str]) -> str | None:
    """The token as the Hub's own client finds it, from `environ` and the file that a login leaves."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environ.get(name, "").strip():
            return plausible_token(token, name, like="hf_...")
    cache = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else None)
    home = environ.get("HF_HOME") or (f"{cache}/huggingface" if cache else None)
    if home is None:
        return None
    try:
        with (Path(home) / "token").open("rb") as stream:
            token = stream.read(_LARGEST_TOKEN).decode("ascii", "replace").strip()
    except OSError:
        return None
    return plausible_token(token, "$HF_HOME/token", like="hf_...") if token else None


def _parse(body: bytes, what: str, revision: str) -> Revision:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _nonsense(what, "it is not JSON") from None
    commit = answer.get("sha") if isinstance(answer, dict) else None
    siblings = answer.get("siblings") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not is_hex(commit, 40) or not isinstance(siblings, list):
        raise _nonsense(what, "it names no commit, or no files")
    if is_hex(revision, 40) and commit != revision:
        raise _nonsense(what, f"it speaks of commit {commit}")
    files: dict[str, Content] = {}
    for sibling in siblings:
        path = sibling.get("rfilename") if isinstance(sibling, dict) else None
        if not isinstance(path, str):
            raise _nonsense(what, "a file has no name")
        paths.safe_relative(path, origin=f"the listing of {what}")
        if path in files:
            raise _nonsense(what, f"{path!r:.200} is listed twice")
        files[path] = _content(what, path, sibling)
    for path in files:
        if above := next((p for p in paths.parents(path) if p in files), None):
            raise _nonsense(what, f"{above!r:.200} is both a file and a directory")
    return Revision(commit=commit, files=files)


def _content(what: str, path: str, sibling: dict[str, Any]) -> Content:
    lfs = sibling.get("lfs")
    if lfs is None:
        blob, size = sibling.get("blobId"), sibling.get("size")
        if is_hex(blob, 40) and is_size(size):
            return Content(git_blob=blob, size=size)
    elif isinstance(lfs, dict):
        sha256, size = lfs.get("sha256"), lfs.get("size")
        if is_hex(sha256, 64) and is_size(size):
            return Content(sha256=sha256, size=size)
    raise _nonsense(what, f"{path!r:.200} has no proper digest and size")


def _nonsense(what: str, cause: str) -> SourceError:
    return SourceError(
        f"the Hub's answer about {what} makes no sense",
        cause=cause,
        hint="check HF_ENDPOINT: it must be a Hub, or a mirror that answers ?blobs=true as the Hub does",
    )

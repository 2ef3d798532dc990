"""The Hugging Face Hub's endpoints that are needed: a revision's listing, and a file's bytes.

Works against `HF_ENDPOINT`, so also against mirrors. The token goes to that origin only.
https://huggingface.co/docs/hub/api; what is not said there is as huggingface_hub 0.16 to 2.4 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

import requests

from layerbuild.errors import AccessDenied, NotFound, SourceError
from layerbuild.model import Content
from layerbuild.sources import hublisting
from layerbuild.sources.base import Context, words
from layerbuild.sources.endpoints import confidential, endpoint, plausible_token
from layerbuild.sources.hublisting import Revision
from layerbuild.sources.memo import Memo
from layerbuild.sources.transfer import Remote, document, page, refusal

DEFAULT_ENDPOINT = "https://huggingface.co"

_LARGEST_LISTING = 64 * 1024 * 1024
"""Bytes of one answer, and of all pages of a listing together."""
_MOST_PAGES = 5000
"""Of 1,000 files each."""

_RELIABLE = 50_000
"""Files up to which `siblings` names all of them; the real clients hold it to the same number."""

_LARGEST_TOKEN = 4096


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the Hub. `type` is `models`, `datasets` or `spaces`, as in the API's addresses."""

    type: str
    name: str

    @property
    def path(self) -> str:
        """Where it is below the endpoint; also its name in `hf://` addresses."""
        return self.name if self.type == "models" else f"{self.type}/{self.name}"


class Hub:
    """A Hub as one user sees it. Endpoint and token come from the context's environment."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self.endpoint = endpoint(context.environ, "HF_ENDPOINT", DEFAULT_ENDPOINT, what="a Hub")
        self._token = _token(context.environ) if confidential(self.endpoint) else None
        self._memo = Memo()

    def revision(self, repository: Repository, revision: str) -> Revision:
        """The commit and files of a branch, tag or commit. Asked once, whoever wants it:

        `GET /api/TYPE/NAME/revision/REV?blobs=true`, and the pages of `GET /api/TYPE/NAME/tree/COMMIT?recursive=true`
        for a very large repository, or from a mirror that does not answer `blobs=true`.

        Raises:
            NotFound, AccessDenied, Unreachable: the Hub says so, or nothing.
            SourceError: its answer makes no sense, or names an unsafe path.
        """
        found = self._memo.get((repository, revision), lambda: self._ask(repository, revision))
        self._memo.put((repository, found.commit), found)
        return found

    def _ask(self, repository: Repository, revision: str) -> Revision:
        what = f"hf://{repository.path}@{revision}"
        url = f"{self._api(repository)}/revision/{quote(revision, safe='')}?blobs=true"
        body = document(self._remote(repository, url, what, None), limit=_LARGEST_LISTING)
        found = hublisting.parse_revision(body, what, revision)
        if 0 < len(found.files) <= _RELIABLE:
            return found
        return replace(found, files=self._tree(repository, found.commit))

    def _tree(self, repository: Repository, commit: str) -> Mapping[str, Content]:
        what = f"hf://{repository.path}@{commit}"
        start = f"{self._api(repository)}/tree/{commit}"
        listing = hublisting.Listing(what)
        query: str | None = urlencode({"recursive": "true"})
        left, pages = _LARGEST_LISTING, 0
        while query is not None:
            body, headers = page(self._remote(repository, f"{start}?{query}", what, None), limit=left)
            left -= len(body)
            pages += 1
            hublisting.add_page(listing, body)
            query = _next_query(f"{start}?{query}", headers.get("Link", ""))
            if pages >= _MOST_PAGES and query is not None:
                raise listing.nonsense(f"it has more than {_MOST_PAGES} pages")
        return listing.complete()

    def _api(self, repository: Repository) -> str:
        return f"{self.endpoint}/api/{repository.type}/{repository.name}"

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


def _next_query(url: str, link: str) -> str | None:
    """The query of a listing's next page by its `Link` header (RFC 8288), None where this was the last.

    Only the query is taken: a mirror may hand on the Hub's own address, and no token may go there.
    """
    target = next((link["url"] for link in requests.utils.parse_header_links(link) if link.get("rel") == "next"), None)
    if target is None:
        return None
    try:
        query = parse_qs(urlsplit(urljoin(url, target)).query)
    except ValueError:
        query = {}
    cursor = query.get("cursor", [""])[0]
    if not cursor or cursor in parse_qs(urlsplit(url).query).get("cursor", []):
        raise SourceError(
            "the Hub's listing has no end",
            cause=f"after a page it leads to {words(target)!r}",
            hint="check HF_ENDPOINT: what answers there is no Hub",
        )
    kept = {name: values[0] for name, values in query.items() if name in ("cursor", "limit")}
    return urlencode({"recursive": "true", **kept})


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

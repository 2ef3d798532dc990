"""What a pasted text means: pages of the Hub, of Civitai and of git hosts, download links, sources, paths. Pure.

Addresses of pages are turned into sources; nothing is asked. Tokens in them are dropped, or refused later
by the source itself, and never repeated.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from layerbuild.errors import UsageError
from layerbuild.sources import SCHEMES, huggingface
from layerbuild.sources.base import shown

MODEL_SUFFIXES = frozenset((".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx"))
"""Extensions of model files."""

_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_CIVITAI_HOSTS = ("civitai.com", "www.civitai.com", "civitai.green", "civitai.red")
_GIT_HOSTS = ("github.com", "www.github.com", "gitlab.com", "codeberg.org", "bitbucket.org")
_LONGEST = 4096
_TRAITS = ("type", "format", "size", "fp")
_WORD = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_BARE = re.compile(rf"{_WORD}/{_WORD}(@[A-Za-z0-9._%-]+)?", re.ASCII)
_SCP = re.compile(r"(?:ssh://)?git@([A-Za-z0-9.-]+)(?::|/)(.+)", re.ASCII)
_AIR = re.compile(r"urn:air:[^:]*:[^:]*:civitai:(\d+)(?:@(\d+))?", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
_FORMS = (
    "paste hf://ORG/NAME/PATH or a page of huggingface.co, civitai://VERSION or a page of civitai.com, the https:// "
    "address of a file, a repository (https://github.com/ORG/NAME), s3://BUCKET/KEY, or the path of a file here"
)

Form = Literal["file", "hub", "civitai-model", "git"]


@dataclass(frozen=True, kw_only=True)
class Pasted:
    """What was pasted.

    Attributes:
        form: `file`, one file; `hub`, a repository of the Hub; `civitai-model`, a model whose newest version is
            meant; `git`, a tree.
        source: as a declaration takes it. Of `civitai-model`, the model's number.
        below: directory of a Hub repository that is meant, without a trailing slash.
        notes: what was left out, for people.
    """

    form: Form
    source: str
    below: str = ""
    notes: tuple[str, ...] = ()


def recognise(text: str, *, is_there: Callable[[str], bool]) -> Pasted:
    """What `text` means.

    Args:
        is_there: whether a path of this machine exists.

    Raises:
        UsageError: nothing that is known.
        SourceError: an hf:// address that is malformed.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise UsageError("what was given is no source", cause="it is empty, too long, or not printable", hint=_FORMS)
    air = _AIR.fullmatch(text)
    if air:
        return Pasted(form="file", source=f"civitai://{air[2]}") if air[2] else _civitai_model(air[1])
    scp = _SCP.fullmatch(text)
    if scp:
        return _repository(f"https://{scp[1]}/{scp[2].strip('/').removesuffix('.git')}", "HEAD")
    scheme, colon, _ = text.partition(":")
    if colon and scheme.lower() in ("http", "https"):
        return _web(text)
    if colon and scheme.lower() in SCHEMES:
        return _source(scheme.lower() + text[len(scheme) :])
    if is_there(text):
        return Pasted(form="file", source=f"file:{text}")
    if _BARE.fullmatch(text) and posixpath.splitext(text)[1].lower() not in MODEL_SUFFIXES:
        return Pasted(form="hub", source=f"hf://{text}")
    raise UsageError(f"{shown(text)} is neither a file here nor an address that is known", hint=_FORMS)


def _source(uri: str) -> Pasted:
    """A source as a declaration has it."""
    scheme = uri.partition(":")[0]
    if scheme == "hf":
        uri = uri.rstrip("/")
        return Pasted(form="hub" if huggingface.parse(uri).path is None else "file", source=uri)
    if uri.startswith("git+"):
        has_revision = "@" in uri.rpartition("/")[2]
        return Pasted(form="git", source=uri if has_revision else f"{uri}@HEAD")
    return Pasted(form="file", source=uri)


def _web(url: str) -> Pasted:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        raise UsageError(f"{shown(url)} is not an address", hint=_FORMS) from None
    if "@" not in parts.netloc:
        if host in _HUB_HOSTS:
            return _hub(parts)
        if host in _CIVITAI_HOSTS:
            return _civitai(parts)
        if host in _GIT_HOSTS:
            return _git_host(parts, host.removeprefix("www."))
        if parts.path.endswith(".git"):
            return _repository(parts._replace(query="", fragment="").geturl(), "HEAD")
    return Pasted(form="file", source=parts._replace(fragment="").geturl())


def _hub(parts: SplitResult) -> Pasted:
    """`/[datasets/]ORG/NAME[/(tree|blob|resolve|raw)/REV[/PATH]]`, of which REV may hold an encoded slash."""
    words = [part for part in parts.path.split("/") if part]
    kind = f"{words.pop(0)}/" if words and words[0] in ("datasets", "spaces") else ""
    marks = [at for at, word in enumerate(words) if at in (1, 2) and word in ("tree", "blob", "resolve", "raw")]
    name = words[: marks[0]] if marks else words[:2]
    if not name or words[0] in ("api", "docs", "models", "settings"):
        raise _not_meant(parts, "it is no page of a repository")
    repository = f"hf://{kind}{'/'.join(name)}"
    if not marks or len(words) <= marks[0] + 1:
        return Pasted(form="hub", source=repository)
    revision = quote(unquote(words[marks[0] + 1]), safe="")
    path = unquote("/".join(words[marks[0] + 2 :]))
    source = repository if revision == "main" else f"{repository}@{revision}"
    if not path or words[marks[0]] == "tree":
        return Pasted(form="hub", source=source, below=path)
    # A name of one word needs its revision before a path.
    return Pasted(form="file", source=f"{repository}@{revision}/{path}")


def _civitai(parts: SplitResult) -> Pasted:
    words = [part for part in parts.path.split("/") if part]
    query = dict(parse_qsl(parts.query))
    notes = ("a token in the address was left out: put it into CIVITAI_TOKEN",) if "token" in query else ()
    number = query.get("modelVersionId", "")
    if words[:1] == ["models"] and len(words) > 1 and _NUMBER.fullmatch(words[1]):
        if _NUMBER.fullmatch(number):
            return Pasted(form="file", source=f"civitai://{number}", notes=notes)
        return _civitai_model(words[1], notes)
    version = words[-1] if words[:-1] in (["api", "download", "models"], ["api", "v1", "model-versions"]) else ""
    version = words[1] if words[:1] == ["model-versions"] and len(words) > 1 else version
    if _NUMBER.fullmatch(version):
        narrowed = urlencode([(name, query[name]) for name in _TRAITS if query.get(name)])
        return Pasted(form="file", source=f"civitai://{version}" + (f"?{narrowed}" if narrowed else ""), notes=notes)
    raise _not_meant(parts, "it is no page of a model, and no download link of one")


def _civitai_model(number: str, notes: tuple[str, ...] = ()) -> Pasted:
    return Pasted(form="civitai-model", source=number, notes=notes)


def _git_host(parts: SplitResult, host: str) -> Pasted:
    """`/ORG/NAME`, a branch or a commit of it, or a file in it or in one of its releases."""
    words = [part for part in parts.path.split("/") if part]
    if len(words) < 2:
        raise _not_meant(parts, "it is no page of a repository")
    end = words.index("-") if "-" in words[2:] else 2
    repository = f"https://{host}/{'/'.join(words[:end]).removesuffix('.git')}"
    rest = [word for word in words[end:] if word != "-"]
    if not rest:
        return _repository(repository, "HEAD")
    if rest[0] in ("tree", "commit", "src") and len(rest) > 1:
        return _repository(repository, unquote("/".join(word for word in rest[1:] if word not in ("branch", "commit"))))
    if rest[:2] == ["releases", "tag"] and len(rest) > 2:
        return _repository(repository, unquote("/".join(rest[2:])))
    if rest[0] == "blob" and host == "github.com" and len(rest) > 2:
        # Not raw.githubusercontent.com: that gives the pointer of a Git LFS file instead of the file.
        return Pasted(form="file", source=f"{repository}/raw/{'/'.join(rest[1:])}")
    if rest[0] == "raw" or rest[:2] == ["releases", "download"]:
        return Pasted(form="file", source=parts._replace(fragment="").geturl())
    raise _not_meant(parts, "it is neither a repository nor a file in one")


def _repository(address: str, revision: str) -> Pasted:
    return Pasted(form="git", source=f"git+{address}@{revision}")


def _not_meant(parts: SplitResult, cause: str) -> UsageError:
    return UsageError(f"{shown(parts.geturl())} names nothing that can be added", cause=cause, hint=_FORMS)

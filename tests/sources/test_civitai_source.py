"""civitai://: which file is meant, what it is pinned to, and why it cannot be had."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from fixtures.civitai import Civitai
from fixtures.web import Answer
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.model import Content, PinnedFile
from layerbuild.sources import source_for
from layerbuild.sources.base import Context, Request
from layerbuild.sources.civitai import CivitaiSource, parse

DATA = bytes(range(256)) * 40
OTHER = b"other" * 3000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def civitai_context(context: Context, civitai: Civitai) -> Context:
    return replace(context, environ={"CIVITAI_ENDPOINT": civitai.endpoint, "CIVITAI_TOKEN": civitai.token})


@pytest.fixture
def source(civitai_context: Context) -> CivitaiSource:
    return CivitaiSource(civitai_context)


def anonymous(context: Context, civitai: Civitai) -> CivitaiSource:
    return CivitaiSource(replace(context, environ={"CIVITAI_ENDPOINT": civitai.endpoint}))


# --- pins ------------------------------------------------------------------------------------------


def test_pins_the_primary_file_and_learns_its_exact_size(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA, "night.ckpt": OTHER})
    civitai.versions[130]["files"][0]["sizeKB"] = 10.0  # rounded
    pin = source.resolve(Request(uri="civitai://130"))
    assert pin.source == "civitai://130?file=1300"
    assert pin.files == (PinnedFile(path="night.safetensors", content=Content(size=len(DATA), sha256=sha256(DATA))),)
    assert civitai.cdn.sent["/files/1300"] <= 1, "no more than one byte was fetched"


def test_a_declared_size_saves_the_question(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA})
    pin = source.resolve(Request(uri="civitai://130", size=len(DATA)))
    assert pin.files[0].content.size == len(DATA)
    assert [r.path for r in civitai.web.requests] == ["/api/v1/model-versions/130"]
    assert not civitai.cdn.requests


def test_reads_the_pinned_file_whole_and_by_range(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA, "day.safetensors": OTHER})
    pin = source.resolve(Request(uri="civitai://130?file=day.safetensors"))
    assert pin.source == "civitai://130?file=1301"
    assert b"".join(source.open(pin, pin.files[0])) == OTHER
    assert b"".join(source.open(pin, pin.files[0], offset=5, length=7)) == OTHER[5:12]
    assert len(civitai.web.asked("/api/v1/model-versions/130")) == 1, "a version is asked for once in a command"


def test_the_token_goes_to_the_api_only_and_in_a_header_only(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA}, login="401")
    pin = source.resolve(Request(uri="civitai://130"))
    assert b"".join(source.open(pin, pin.files[0])) == DATA
    assert {r.headers.get("authorization") for r in civitai.web.requests} == {f"Bearer {civitai.token}"}
    assert civitai.cdn.requests and not any("authorization" in r.headers for r in civitai.cdn.requests)
    assert not any(civitai.token in r.query for r in [*civitai.web.requests, *civitai.cdn.requests])


def test_a_broken_download_goes_on_by_a_fresh_address(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA})
    pin = source.resolve(Request(uri="civitai://130", size=len(DATA)))
    whole = {"Content-Range": f"bytes 100-{len(DATA) - 1}/{len(DATA)}"}
    civitai.cdn.route(
        "/files/1300", Answer(body=DATA, cut=100), Answer(status=206, body=DATA[100:], headers=whole, ranges=False)
    )
    assert b"".join(source.open(pin, pin.files[0])) == DATA
    assert len(civitai.web.asked("/api/download/models/130", "GET")) == 2
    assert civitai.cdn.requests[-1].headers["range"] == "bytes=100-"


def test_through_a_mirror_whose_answers_name_civitai(source: CivitaiSource, civitai: Civitai) -> None:
    version = civitai.add(130, {"night.safetensors": DATA})
    version["files"][0]["downloadUrl"] = "https://civitai.invalid/api/download/models/130"
    pin = source.resolve(Request(uri="civitai://130"))
    assert b"".join(source.open(pin, pin.files[0])) == DATA


def test_an_address_elsewhere_gets_no_token(source: CivitaiSource, civitai: Civitai) -> None:
    version = civitai.add(130, {"night.safetensors": DATA})
    version["files"][0]["downloadUrl"] = f"{civitai.cdn.url}/files/1300?X-Amz-Signature={civitai.signature}"
    pin = source.resolve(Request(uri="civitai://130"))
    assert b"".join(source.open(pin, pin.files[0])) == DATA
    assert not any("authorization" in r.headers for r in civitai.cdn.requests)


@pytest.mark.parametrize("digits", [64, 10])
def test_by_hash(source: CivitaiSource, civitai: Civitai, digits: int) -> None:
    civitai.add(130, {"night.safetensors": DATA, "day.safetensors": OTHER})
    pin = source.resolve(Request(uri=f"civitai://sha256:{sha256(OTHER)[:digits].upper()}"))
    assert pin.source == "civitai://130?file=1301"
    assert pin.files[0].content.sha256 == sha256(OTHER)


def test_by_hash_unknown(source: CivitaiSource, civitai: Civitai) -> None:
    with pytest.raises(NotFound, match="unknown or not published"):
        source.resolve(Request(uri=f"civitai://sha256:{sha256(b'nothing')}"))


def test_declared_digest_and_size_must_agree(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA})
    with pytest.raises(ContentMismatch, match="is not what is declared"):
        source.resolve(Request(uri="civitai://130", sha256="0" * 64))


def test_a_file_that_was_replaced_is_noticed_before_it_is_fetched(
    source: CivitaiSource, civitai: Civitai, civitai_context: Context
) -> None:
    version = civitai.add(130, {"night.safetensors": DATA})
    pin = source.resolve(Request(uri="civitai://130", size=len(DATA)))
    version["files"][0]["hashes"]["SHA256"] = "A" * 64
    later = CivitaiSource(replace(civitai_context))
    with pytest.raises(ContentMismatch, match="is not what was pinned"):
        b"".join(later.open(pin, pin.files[0]))


def test_offline(source: CivitaiSource, civitai: Civitai, civitai_context: Context) -> None:
    civitai.add(130, {"night.safetensors": DATA})
    pin = source.resolve(Request(uri="civitai://130"))
    offline = CivitaiSource(replace(civitai_context, offline=True))
    with pytest.raises(Unreachable, match="not known here"):
        offline.resolve(Request(uri="civitai://130"))
    with pytest.raises(Unreachable, match="not known here"):
        offline.open(pin, pin.files[0])


# --- which file ------------------------------------------------------------------------------------


def variants(civitai: Civitai) -> None:
    civitai.add(
        7, {"a.safetensors": b"a" * 5000, "b.safetensors": b"b" * 5000, "c.ckpt": b"c" * 5000, "v.pt": b"v" * 5000}
    )
    civitai.vary(7, 0, fp="fp16", size="pruned")
    civitai.vary(7, 1, fp="fp32", size="full")
    civitai.vary(7, 2, fp="fp16", size="full")
    civitai.vary(7, 3, type="VAE")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "a.safetensors"),
        ("?fp=fp32", "b.safetensors"),
        ("?fp=FP16&size=full", "c.ckpt"),
        ("?fp=fp16", "a.safetensors"),  # the primary one among two
        ("?format=PickleTensor", "c.ckpt"),
        ("?type=Model&format=SafeTensor&size=pruned&fp=fp16", "a.safetensors"),  # as on the page
        ("?type=VAE", "v.pt"),
        ("?file=v.pt", "v.pt"),
        ("?file=73", "v.pt"),
    ],
)
def test_the_query_narrows(source: CivitaiSource, civitai: Civitai, query: str, name: str) -> None:
    variants(civitai)
    assert source.resolve(Request(uri=f"civitai://7{query}")).files[0].path == name


def test_names_are_percent_decoded(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(7, {"first.safetensors": DATA, "a & b+c.safetensors": OTHER})
    pin = source.resolve(Request(uri="civitai://7?file=a%20%26%20b+c.safetensors"))
    assert pin.files[0].path == "a & b+c.safetensors"


def test_an_ambiguous_choice_lists_what_to_write(source: CivitaiSource, civitai: Civitai) -> None:
    variants(civitai)
    del civitai.versions[7]["files"][0]["primary"]
    with pytest.raises(SourceError, match="several files") as caught:
        source.resolve(Request(uri="civitai://7"))
    assert caught.value.hint is not None
    assert "civitai://7?file=70 (a.safetensors, Model, SafeTensor, pruned, fp16)" in caught.value.hint
    assert "?file=72" in caught.value.hint
    assert "?file=73" not in caught.value.hint, "a VAE beside the models is not meant"


def test_a_query_that_matches_nothing_lists_what_there_is(source: CivitaiSource, civitai: Civitai) -> None:
    variants(civitai)
    with pytest.raises(NotFound, match="no such file") as caught:
        source.resolve(Request(uri="civitai://7?fp=fp8"))
    assert caught.value.cause == "nothing matches fp=fp8"
    assert "civitai://7?file=73" in str(caught.value.hint)


# --- what cannot be had ----------------------------------------------------------------------------


def test_unpublished(source: CivitaiSource) -> None:
    with pytest.raises(NotFound, match="unknown or not published any more"):
        source.resolve(Request(uri="civitai://99"))


def test_archived(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {}, status="Archived")
    with pytest.raises(NotFound, match="has no files") as caught:
        source.resolve(Request(uri="civitai://130"))
    assert "archived" in str(caught.value.cause)


@pytest.mark.parametrize("login", ["page", "401", "403"])
def test_a_login_is_asked_for(context: Context, civitai: Civitai, login: str) -> None:
    civitai.add(130, {"night.safetensors": DATA * 10}, login=login)
    with pytest.raises(AccessDenied, match="may not be downloaded") as caught:
        anonymous(context, civitai).resolve(Request(uri="civitai://130"))
    assert "set CIVITAI_TOKEN to an API key" in str(caught.value.hint)
    assert ("a login page came" in str(caught.value.cause)) == (login == "page")


@pytest.mark.parametrize("login", ["page", "401"])
def test_a_login_that_is_asked_for_at_the_download(context: Context, civitai: Civitai, login: str) -> None:
    civitai.add(130, {"night.safetensors": DATA})
    source = anonymous(context, civitai)
    pin = source.resolve(Request(uri="civitai://130"))
    civitai.login[130] = login
    with pytest.raises(AccessDenied, match="may not be downloaded"):
        b"".join(source.open(pin, pin.files[0]))


def test_early_access(source: CivitaiSource, civitai: Civitai) -> None:
    until = "2030-01-02T03:04:05.000Z"
    civitai.add(130, {"night.safetensors": DATA}, login="403", availability="EarlyAccess", earlyAccessEndsAt=until)
    civitai.token = "another one"
    with pytest.raises(AccessDenied) as caught:
        source.resolve(Request(uri="civitai://130"))
    assert f"early access until {until}" in str(caught.value.cause)
    assert "buy the access, wait" in str(caught.value.hint)


def test_generation_only(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA}, login="401", usageControl="Generation")
    civitai.token = "another one"
    with pytest.raises(AccessDenied) as caught:
        source.resolve(Request(uri="civitai://130"))
    assert "its creator allows no downloads (Generation only)" in str(caught.value.cause)


def test_a_size_that_cannot_be_is_no_file(source: CivitaiSource, civitai: Civitai) -> None:
    version = civitai.add(130, {"night.safetensors": DATA})
    version["files"][0]["sizeKB"] = 2082642.474609375
    with pytest.raises(AccessDenied, match="this cannot be the file") as caught:
        source.resolve(Request(uri="civitai://130"))
    assert caught.value.cause == f"the server has {len(DATA)} bytes, the API tells of about 2132625894"


def test_no_token_over_plain_http_to_another_machine(context: Context) -> None:
    environ = {"CIVITAI_ENDPOINT": "http://civitai.invalid", "CIVITAI_TOKEN": Civitai.token}
    source = CivitaiSource(replace(context, environ=environ))
    with pytest.raises(Unreachable):
        source.resolve(Request(uri="civitai://130"))
    assert source._connect()._headers() == {}
    assert "no token is sent" in source._connect()._login_hint(None)


@pytest.mark.parametrize("result", ["Danger", "danger"])
def test_danger_is_refused(source: CivitaiSource, civitai: Civitai, result: str) -> None:
    civitai.add(130, {"night.ckpt": DATA})["files"][0]["pickleScanResult"] = result
    with pytest.raises(SourceError, match="is dangerous") as caught:
        source.resolve(Request(uri="civitai://130"))
    assert "pickle scan" in str(caught.value.cause)


def test_what_was_not_scanned_is_told(source: CivitaiSource, civitai: Civitai, notes: Any) -> None:
    version = civitai.add(130, {"night.safetensors": DATA})
    version["files"][0] |= {"pickleScanResult": "Pending", "virusScanResult": None}
    source.resolve(Request(uri="civitai://130"))
    assert notes.lines == [
        "civitai://130 (night.safetensors): Civitai's pickle scan says Pending",
        "civitai://130 (night.safetensors): Civitai's virus scan says missing",
    ]


def test_without_a_published_digest_one_must_be_declared(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA})["files"][0]["hashes"] = {}
    with pytest.raises(SourceError, match="publishes no sha256"):
        source.resolve(Request(uri="civitai://130"))
    pin = source.resolve(Request(uri="civitai://130", sha256=sha256(DATA)))
    assert pin.files[0].content.sha256 == sha256(DATA)


# --- hostile answers -------------------------------------------------------------------------------


def version(**changes: Any) -> bytes:
    file = {"id": 1, "name": "a.safetensors", "hashes": {"SHA256": "0" * 64}, "sizeKB": 1, "primary": True}
    return json.dumps({"id": 5, "files": [{**file, "downloadUrl": "/api/download/models/5", **changes}]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"id": true, "files": []}',
        b'{"id": 5, "files": {}}',
        b'{"id": 5, "files": [1]}',
        b'{"id": 5, "files": [{"id": 1}]}',
        b"[" * 100_000,
        b'{"id": 6, "files": []}',
        version(name="../../etc/passwd"),
        version(name="/etc/passwd"),
        version(downloadUrl="file:///etc/passwd"),
        version(downloadUrl="https://user:password@example.invalid/x"),
        version(downloadUrl="https://[/x"),
        version(downloadUrl=7),
        version(name=[], sizeKB="x"),
    ],
)
def test_answers_that_make_no_sense(source: CivitaiSource, civitai: Civitai, body: bytes) -> None:
    civitai.web.route("/api/v1/model-versions/5", body)
    with pytest.raises(SourceError) as caught:
        source.resolve(Request(uri="civitai://5", size=1))
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize("size", [float("nan"), -1, 10**400, "x", True, None, 0])
def test_sizes_that_make_no_sense_are_ignored(source: CivitaiSource, civitai: Civitai, size: Any) -> None:
    civitai.add(5, {"a.safetensors": DATA})["files"][0]["sizeKB"] = size
    assert source.resolve(Request(uri="civitai://5")).files[0].content.size == len(DATA)


def test_a_page_instead_of_the_api(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.web.route("/api/v1/model-versions/5", Answer(body=b"<html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(SourceError, match="a web page came instead"):
        source.resolve(Request(uri="civitai://5"))


def test_an_endless_answer_is_cut_off(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.web.route("/api/v1/model-versions/5", b" " * (8 * 1024 * 1024 + 1))
    with pytest.raises(SourceError, match="sent more than"):
        source.resolve(Request(uri="civitai://5"))


# --- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest",
    [
        *("", "0", "x", "-1", "1/2", "9" * 30, "\N{ARABIC-INDIC DIGIT ONE}", "user:pw@7"),
        *("7?", "7?fp", "7?fp=", "7?fp=a&fp=b", "7?what=1", f"7?token={Civitai.token}"),
        *("sha256:", "sha256:abc", f"sha256:{'g' * 64}", f"sha256:{'0' * 64}?file=1"),
    ],
)
def test_addresses_that_are_none(source: CivitaiSource, civitai: Civitai, rest: str) -> None:
    with pytest.raises(SourceError, match="is not an address on Civitai") as caught:
        source.resolve(Request(uri=f"civitai://{rest}"))
    assert Civitai.token not in str(caught.value)
    assert not civitai.web.requests


def test_what_is_pinned_parses_again(source: CivitaiSource, civitai: Civitai) -> None:
    civitai.add(130, {"night.safetensors": DATA})
    pin = source.resolve(Request(uri="civitai://130"))
    assert parse(pin.source).query == {"file": "1300"}
    assert source.checked(pin.source) == pin.source


def test_files_and_absent_do_not_apply(source: CivitaiSource) -> None:
    with pytest.raises(SourceError, match="is one file"):
        source.resolve(Request(uri="civitai://7", files=("a",)))


@pytest.mark.parametrize("value", ["ftp://x", "https://user:secret@x", "nonsense"])
def test_an_endpoint_that_is_none(context: Context, value: str) -> None:
    source = CivitaiSource(replace(context, environ={"CIVITAI_ENDPOINT": value}))
    with pytest.raises(SourceError, match="CIVITAI_ENDPOINT is not the address") as caught:
        source.resolve(Request(uri="civitai://7"))
    assert "secret" not in str(caught.value)


def test_a_token_that_is_none(context: Context, civitai: Civitai) -> None:
    environ = {"CIVITAI_ENDPOINT": civitai.endpoint, "CIVITAI_TOKEN": "two words"}
    with pytest.raises(SourceError, match="CIVITAI_TOKEN does not hold a token") as caught:
        CivitaiSource(replace(context, environ=environ)).resolve(Request(uri="civitai://7"))
    assert "two words" not in str(caught.value)


def test_the_table_knows_it(civitai_context: Context, civitai: Civitai) -> None:
    civitai.add(7, {"a.safetensors": DATA})
    pin = source_for("civitai://7", civitai_context).resolve(Request(uri="civitai://7"))
    assert pin.files[0].path == "a.safetensors"

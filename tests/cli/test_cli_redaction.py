"""No secret is printed, whoever says it: `--debug` shows exceptions of other libraries."""

from __future__ import annotations

import pytest
import requests

from layerbuild.cli import failure
from layerbuild.cli.redaction import scrub

_SECRET = "geheim-und-lang-genug"

_SAYINGS = [
    f"https://user:{_SECRET}@example.org/x",
    f"https://example.org/x?X-Amz-Signature={_SECRET}",
    f"s3://bucket/key?token={_SECRET}",
    f"HTTPConnectionPool(host='e.org', port=80): Max retries exceeded with url: /x/y?sig={_SECRET} (Caused by X)",
    f"/models/5?token={_SECRET}&a=b",
    f"{{'Authorization': 'Bearer {_SECRET}', 'Accept': 'x'}}",
    f'"Authorization": "Basic {_SECRET}"',
    f"Authorization: Bearer {_SECRET}",
    f"Invalid leading whitespace, reserved character(s), or return character(s) in header value: '{_SECRET}\\n'",
    f"Header part ({_SECRET!r}) from ('X-Key', {_SECRET!r}) must be of type str or bytes",
    f"password={_SECRET}",
    f"'api_key': '{_SECRET}'",
    "hf_abcdefGEHEIM",
    f"Authorization: Token {_SECRET}",
    "ghp_abcdefGEHEIM0123",
    f"http://127.0.0.1:5000/v2/a/b/blobs/uploads/{_SECRET}?_state={_SECRET}",
]


@pytest.mark.parametrize("text", _SAYINGS)
def test_what_looks_like_a_secret(text: str) -> None:
    told = scrub(f"ValueError: {text}", {})
    assert _SECRET not in told and "GEHEIM" not in told
    assert (told.startswith("ValueError: ") and "…" in told) or "user" not in told


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org:8080/a/b.safetensors",
        "FileNotFoundError: [Errno 2] No such file or directory: '/opt/x'",
        '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode',
        "key = the key of the layer",
        "sha256:" + "0" * 64,
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert scrub(text, {"PATH": "/usr/bin", "LANG": "C", "A": "", "SHORT": "x"}) == text


def test_values_of_variables() -> None:
    environ = {"HF_TOKEN": "abcd", "ANY": "0123456789abcdefgh", "HOME": "/root", "STORE": "/opt/a-store-of-some-length"}
    told = scrub("abcd 0123456789abcdefgh /root /opt/a-store-of-some-length", environ)
    assert told == "… … /root /opt/a-store-of-some-length"


@pytest.mark.parametrize("value", ["/bC+dEfGhIjKlMnOpQrSt", "/abc/Def/ghi", "correct horse", "~abcdefg", ".hidden"])
def test_a_secret_may_look_like_a_path_or_a_sentence(value: str) -> None:
    assert scrub(f"got {value} there", {"AWS_SECRET_ACCESS_KEY": value}) == "got … there"


def test_a_place_is_no_secret() -> None:
    place = "/run/user/0/ssh-agent.sock"
    assert scrub(place, {"SSH_AUTH_SOCK": place}) == place


def test_a_trace_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_LOGIN", "0123456789-geheim")
    try:
        try:
            raise requests.ConnectionError(f"https://a:{_SECRET}@example.org/?q={_SECRET} and 0123456789-geheim")
        except requests.ConnectionError as error:
            raise RuntimeError(f"Bearer {_SECRET}") from error
    except RuntimeError as error:
        told = failure.trace(error)
    assert (
        "Traceback" in told and "ConnectionError: https://example.org/?…" in told and "RuntimeError: Bearer …" in told
    )
    assert "geheim" not in told.replace("geheim-und", "", 0).split("raise")[0]
    assert _SECRET not in told and "0123456789-geheim" not in told

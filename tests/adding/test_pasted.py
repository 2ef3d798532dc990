"""What people paste, and what it means."""

from __future__ import annotations

import pytest

from layerbuild.adding.pasted import Pasted, recognise
from layerbuild.errors import LayerbuildError, UsageError

COMMIT = "82a973c04367123ae98bd9abdf80d9eda9b910e2"
HUB = "https://huggingface.co"
CIVITAI = "https://civitai.com"


def pasted(text: str, *there: str) -> Pasted:
    return recognise(text, is_there=there.__contains__)


@pytest.mark.parametrize(
    ("text", "form", "source"),
    [
        ("hf://acme/night/a.safetensors", "file", "hf://acme/night/a.safetensors"),
        ("hf://acme/night@v1/a/b.safetensors", "file", "hf://acme/night@v1/a/b.safetensors"),
        ("hf://acme/night@refs/pr/1", "hub", "hf://acme/night@refs/pr/1"),
        ("hf://acme/night/", "hub", "hf://acme/night"),
        ("hf://bert-base-uncased", "hub", "hf://bert-base-uncased"),
        ("acme/night", "hub", "hf://acme/night"),
        ("acme/night.v2@main", "hub", "hf://acme/night.v2@main"),
        (f"{HUB}/acme/night", "hub", "hf://acme/night"),
        (f"{HUB}/acme/night/tree/main", "hub", "hf://acme/night"),
        (f"{HUB}/acme/night/tree/v2", "hub", "hf://acme/night@v2"),
        (f"{HUB}/acme/night/blob/main/a%20b.safetensors", "file", "hf://acme/night@main/a b.safetensors"),
        (f"{HUB}/acme/night/blob/refs%2Fpr%2F1/a.ckpt", "file", "hf://acme/night@refs%2Fpr%2F1/a.ckpt"),
        (f"{HUB}/acme/night/resolve/{COMMIT}/x/a.pt?download=true", "file", f"hf://acme/night@{COMMIT}/x/a.pt"),
        (f"{HUB}/bert-base-uncased/blob/main/vocab.txt", "file", "hf://bert-base-uncased@main/vocab.txt"),
        (f"{HUB}/datasets/acme/set/resolve/main/a.pt", "file", "hf://datasets/acme/set@main/a.pt"),
        ("https://hf.co/acme/night?x=1#y", "hub", "hf://acme/night"),
        ("civitai://130072?fp=fp16", "file", "civitai://130072?fp=fp16"),
        (f"{CIVITAI}/models/4384", "civitai-model", "4384"),
        (f"{CIVITAI}/models/4384/dream-shaper", "civitai-model", "4384"),
        (f"{CIVITAI}/models/4384/dream-shaper?modelVersionId=128713", "file", "civitai://128713"),
        (f"{CIVITAI}/models/4384?modelVersionId=128713", "file", "civitai://128713"),
        (f"{CIVITAI}/model-versions/128713", "file", "civitai://128713"),
        (f"{CIVITAI}/api/v1/model-versions/128713", "file", "civitai://128713"),
        (f"{CIVITAI}/api/download/models/128713", "file", "civitai://128713"),
        (
            f"{CIVITAI}/api/download/models/128713?type=Model&format=SafeTensor&size=pruned&fp=fp16",
            "file",
            "civitai://128713?type=Model&format=SafeTensor&size=pruned&fp=fp16",
        ),
        ("urn:air:sd1:checkpoint:civitai:4384@128713", "file", "civitai://128713"),
        ("urn:air:sd1:checkpoint:civitai:4384", "civitai-model", "4384"),
        ("https://files.example.com/a.safetensors#top", "file", "https://files.example.com/a.safetensors"),
        ("HTTPS://files.example.com/a.pt", "file", "https://files.example.com/a.pt"),
        ("s3://bucket/a.safetensors", "file", "s3://bucket/a.safetensors"),
        ("oci://r.example.com/a:1/m.safetensors", "file", "oci://r.example.com/a:1/m.safetensors"),
        ("file:models/a.pt", "file", "file:models/a.pt"),
        ("https://github.com/acme/ext", "git", "git+https://github.com/acme/ext@HEAD"),
        ("https://github.com/acme/ext.git", "git", "git+https://github.com/acme/ext@HEAD"),
        ("https://www.github.com/acme/ext/tree/feature/x", "git", "git+https://github.com/acme/ext@feature/x"),
        (f"https://github.com/acme/ext/commit/{COMMIT}", "git", f"git+https://github.com/acme/ext@{COMMIT}"),
        ("https://github.com/acme/ext/releases/tag/v1", "git", "git+https://github.com/acme/ext@v1"),
        (
            "https://github.com/acme/ext/releases/download/v1/a.pth",
            "file",
            "https://github.com/acme/ext/releases/download/v1/a.pth",
        ),
        (
            "https://github.com/acme/ext/blob/main/m/a.pth",
            "file",
            "https://github.com/acme/ext/raw/main/m/a.pth",
        ),
        ("https://gitlab.com/acme/group/ext/-/tree/dev", "git", "git+https://gitlab.com/acme/group/ext@dev"),
        ("https://git.example.com/acme/ext.git", "git", "git+https://git.example.com/acme/ext.git@HEAD"),
        ("git@github.com:acme/ext.git", "git", "git+https://github.com/acme/ext@HEAD"),
        ("git+https://github.com/acme/ext", "git", "git+https://github.com/acme/ext@HEAD"),
        ("git+https://github.com/acme/ext@v1", "git", "git+https://github.com/acme/ext@v1"),
    ],
)
def test_form(text: str, form: str, source: str) -> None:
    found = pasted(f" {text}\n")
    assert (found.form, found.source) == (form, source)


def test_a_path_that_exists_wins() -> None:
    assert pasted("acme/night", "acme/night").source == "file:acme/night"
    assert pasted("x.safetensors", "x.safetensors") == Pasted(form="file", source="file:x.safetensors")


def test_a_directory_of_a_repository() -> None:
    assert pasted(f"{HUB}/acme/night/tree/main/text_encoder").below == "text_encoder"


@pytest.mark.parametrize(
    "text",
    [
        *("", "nonsense", "models/gone.safetensors", "a/b/c", "gopher://x/y", "x" * 5000, "a\x1b[31mb", "https://["),
        *(f"{HUB}/docs/hub", HUB, f"{CIVITAI}/images/5", f"{CIVITAI}/models/x", f"{CIVITAI}/models/99999999999999999"),
        *("https://github.com/acme", "https://github.com/acme/ext/issues/3", "hf://a/b/c/../d", "hf://"),
    ],
)
def test_what_means_nothing_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(LayerbuildError) as caught:
        pasted(text)
    assert caught.value.hint and "\x1b" not in str(caught.value)


def test_a_token_never_comes_back() -> None:
    token = "0123456789abcdefSECRET"
    for path in ("api/download/models/5?token=", "models/4?modelVersionId=5&token="):
        found = pasted(f"{CIVITAI}/{path}{token}")
        assert token not in repr(found) and found.source == "civitai://5"
        assert "CIVITAI_TOKEN" in found.notes[0]
    assert token not in repr(pasted(f"{HUB}/acme/night/resolve/main/a.pt?token={token}"))
    # The source itself refuses a user name.
    assert pasted(f"https://u:{token}@github.com/acme").form == "file"
    with pytest.raises(UsageError) as caught:
        pasted(f"{CIVITAI}/nothing?token={token}")
    assert token not in str(caught.value)

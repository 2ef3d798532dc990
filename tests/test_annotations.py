"""Which annotations a recipe may give, by their keys and values."""

from __future__ import annotations

import pytest

from layerbuild.annotations import fault, is_date_time
from layerbuild.image import DIFF_ID_ANNOTATION, ENCODING_ANNOTATION, KEY_ANNOTATION


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-31T12:00:00Z",
        "2024-02-29t00:00:00.123456789z",
        "1985-04-12T23:20:50.52+05:30",
        "1990-12-31T23:59:60Z",
        "0001-01-01T00:00:00-23:59",
    ],
)
def test_dates_of_the_standard(text: str) -> None:
    assert is_date_time(text)
    assert fault("org.opencontainers.image.created", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-05-31",
        "2024-05-31T12:00:00",
        "2024-05-31 12:00:00Z",
        "2024-05-31T12:00Z",
        "2023-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-05-31T24:00:00Z",
        "2024-05-31T12:60:00Z",
        "2024-05-31T12:00:61Z",
        "2024-05-31T12:00:00+24:00",
        "2024-05-31T12:00:00+05:60",
        "2024-05-31T12:00:00.Z",
        "2024-05-31T12:00:00Z\n",
        "٢٠٢٤-05-31T12:00:00Z",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert not is_date_time(text)
    assert fault("org.opencontainers.image.created", text) is not None
    # Elsewhere it is a text like any other.
    assert fault("org.opencontainers.image.version", text) is None


def test_own_keys_are_reserved() -> None:
    for key in (KEY_ANNOTATION, DIFF_ID_ANNOTATION, ENCODING_ANNOTATION, "dev.layerbuild.other"):
        message, hint = fault(key, "x") or ("", "")
        assert repr(key) in message and "dev.layerbuild." in hint
    assert fault("dev.layerbuilder", "x") is None

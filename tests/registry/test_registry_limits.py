from __future__ import annotations

from collections.abc import Iterator

import pytest

from layerbuild import http
from layerbuild.errors import DestinationError, DigestFirst
from layerbuild.registry.client import RegistryClient
from layerbuild.registry.limits import KNOWN, Limits, limits_of
from layerbuild.registry.reference import normal_host
from layerbuild.registry.sending import Stream

GIB = 1 << 30


@pytest.mark.parametrize(
    ("host", "streams", "largest"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", False, 52_000 << 20),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", False, 52_000 << 20),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", False, 52_000 << 20),
        ("123456789012.dkr-ecr.us-east-2.on.aws", False, 52_000 << 20),
        ("public.ecr.aws", False, 52_000 << 20),
        ("europe-west1-docker.pkg.dev", False, None),
        ("gcr.io", False, None),
        ("eu.gcr.io:443", False, None),
        ("GHCR.io", True, 10 * GIB),
        ("docker.io", True, 10 * GIB),
        ("registry-1.docker.io", True, 10 * GIB),
        ("quay.io", True, None),
        ("registry.example.com:5000", True, None),
        ("amazonaws.com", True, None),
        ("ghcr.io.example.com", True, None),
        ("mygcr.io", True, None),
        ("127.0.0.1:5000", True, None),
        ("[::1]:5000", True, None),
    ],
)
def test_what_is_known_of_registries(host: str, streams: bool, largest: int | None) -> None:
    limits = limits_of(normal_host(host))
    assert (limits.streams, limits.largest) == (streams, largest)


def test_only_one_takes_no_more_than_short_chunks() -> None:
    assert [host for host, limits in KNOWN if limits.chunk or limits.whole] == ["ghcr.io"]
    assert limits_of("ghcr.io") == Limits(largest=10 * GIB, chunk=4 << 20, whole=GIB)


class Huge:
    """A blob that must not be opened."""

    digest = f"sha256:{'0' * 64}"

    def __init__(self, size: int) -> None:
        self.size = size

    def open(self, offset: int = 0) -> Iterator[bytes]:
        raise AssertionError("nothing may be read")


def ignore(amount: int) -> None:
    pass


@pytest.mark.parametrize("host", ["ghcr.io", "docker.io"])
def test_a_layer_that_is_too_large_is_refused_before_anything_is_sent(host: str) -> None:
    here = RegistryClient(host, client=http.Client(http.Policy(retries=0)), environ={})
    blob = Huge(10 * GIB + 1)
    with pytest.raises(DestinationError, match=f"{host} takes no layer as large as {blob.digest}") as caught:
        here.upload_blob("acme/a", blob, advance=ignore)
    assert str(10 * GIB) in str(caught.value)
    assert caught.value.hint
    stream = Stream(open=blob.open, size=blob.size, title="layer sdxl")
    with pytest.raises(DestinationError, match=f"{host} takes no layer as large as layer sdxl"):
        here.upload_unnamed("acme/a", stream, advance=ignore)


def test_a_layer_of_just_that_size_is_not() -> None:
    here = RegistryClient("public.ecr.aws", client=http.Client(http.Policy(retries=0)), environ={})
    with pytest.raises(DigestFirst):
        here.upload_unnamed("acme/a", Stream(open=Huge(1).open, size=52_000 << 20, title="x"), advance=ignore)

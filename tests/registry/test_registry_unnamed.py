"""Blobs whose digest is known only when they have gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.registry import Front, digest_of
from layerbuild import http
from layerbuild.registry.client import RegistryClient

QUICK = http.Policy(retries=2, backoff=0.001)
MIB = 1 << 20


def client(front: Front, environ: dict[str, str] | None = None) -> RegistryClient:
    return RegistryClient(front.host, client=http.Client(QUICK), environ=environ or {})


def some_bytes(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, 1000, MIB, 9 * MIB + 17])
def test_a_blob_goes_up_in_one_patch_and_comes_back(registry: Front, size: int) -> None:
    name = f"{registry.prefix}/a"
    data = some_bytes(size)
    opened: list[int] = []
    told: list[int] = []

    def open() -> Iterator[bytes]:
        opened.append(1)
        return (data[i : i + 700_001] for i in range(0, size, 700_001))

    here = client(registry)
    assert here.upload_unnamed(name, size, open, title="layer", advance=told.append) == digest_of(data)
    assert b"".join(here.open_blob(name, digest_of(data))) == data
    assert [len(registry.requests(m)) for m in ("POST", "PATCH", "PUT", "DELETE")] == [1, 1, 1, 0]
    assert registry.uploaded() == size
    assert sum(told) == size
    assert len(opened) == 1

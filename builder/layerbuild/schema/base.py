"""What declarations of every kind have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from layerbuild.fields import HeaderName, Hex64, Mirror
from layerbuild.headers import fault


class Strict(BaseModel):
    """Unknown keys are errors; nothing is turned into a string behind the writer's back."""

    # Most projects use few kinds of layers: what validates the others is never built.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, validate_default=True)


MIRRORS: Any = Field(
    default_factory=list,
    description="Other addresses of the same bytes, tried in order where 'source' is dead. They move no pin.",
)
HEADERS: Any = Field(
    default_factory=dict,
    description="Headers for an https:// source: {Authorization: 'Bearer ${MY_TOKEN}'}. The lock holds the reference, "
    "never the value.",
)


def check_places(source: str | None, mirrors: list[str], headers: dict[str, str]) -> None:
    """Whether `mirrors` and `headers` fit the source.

    Raises:
        ValueError: they do not.
    """
    if mirrors and (source is None or source.startswith(("file:", "git+"))):
        raise ValueError("'mirrors' belong to a source that is fetched from elsewhere, and is one file")
    if headers and (source is None or not source.startswith(("https://", "http://"))):
        raise ValueError("'headers' belong to an https:// source")
    for name, value in headers.items():
        reason = fault(name, value)
        if reason is not None:
            raise ValueError(reason)


class Fetch(Strict):
    """One file from somewhere."""

    source: str = Field(description="Where the bytes come from: hf://, civitai://, https://, s3://, file: ...")
    sha256: Hex64 | None = Field(default=None, description="Expected sha256, 64 lower-case hex digits.")
    size: int | None = Field(default=None, ge=0, description="Expected size in bytes.")
    mirrors: list[Mirror] = MIRRORS
    headers: dict[HeaderName, str] = HEADERS

    @model_validator(mode="after")
    def _places_fit(self) -> Fetch:
        check_places(self.source, self.mirrors, self.headers)
        return self


class AnyLayer(Strict):
    description: str | None = Field(default=None, description="For people; not part of any digest.")
    licence: str | None = Field(default=None, description="SPDX identifier or name; for people.")
    homepage: str | None = Field(default=None, description="Page of the model or project; for people.")


Flavor = Literal["a1111", "forge", "sdnext"]

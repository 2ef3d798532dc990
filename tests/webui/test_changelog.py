"""The webui's release by its changelog."""

from __future__ import annotations

import pytest

from layerbuild.webui.changelog import first_release


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("## 1.10.1\n\n### Bug Fixes:\n* x\n\n## 1.10.0\n", "1.10.1"),
        ("# Changelog\n\n##  v1.9.4 (2024-05-28)\n", "1.9.4"),
        ("## 1.6.0-RC\n", "1.6.0"),
        ("## Upcoming 1.11\n## 1.10.1\n", "1.10.1"),
        ("### 1.2.3\ntext ## 1.2.3\n## 2024\n## Update for 2024-05-28\n", None),
        ("", None),
    ],
)
def test_the_first_heading_that_is_a_release(text: str, release: str | None) -> None:
    assert first_release(text) == release

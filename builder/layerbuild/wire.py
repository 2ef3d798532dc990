"""What all who speak HTTP agree on. Light to import: most commands never speak any."""

from __future__ import annotations

import ipaddress

BLOCK = 1024 * 1024
"""Bytes per read and per write, also for those who send and receive by other ways."""


def is_loopback(host: str) -> bool:
    """Whether `host` (without brackets) is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_count(value: str) -> bool:
    """Whether `value` is a number of bytes or seconds as HTTP writes it (RFC 9110, 8.6), of sane length."""
    return value.isascii() and value.isdigit() and len(value) <= 18

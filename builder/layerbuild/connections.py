"""requests, as the one HTTP client needs it: what it would do by itself, and must not."""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from layerbuild.addresses import origin
from layerbuild.tls import Origin, Trust
from layerbuild.wire import BLOCK


class _Adapter(HTTPAdapter):
    """urllib3 with 1 MiB blocks, and TLS as `trust` has it: requests would read its bundle for every connection.

    urllib3's own 16 KiB cost half the rate on loopback.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, blocksize=BLOCK, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = self._trust.context(None)
        return super().proxy_manager_for(proxy, **kwargs)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        del verify, cert
        where, settings = super().build_connection_pool_key_attributes(request, True, None)
        if where["scheme"] == "https":
            settings["ssl_context"] = self._trust.context(origin(request.url))
        return where, settings

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: the context knows."""


class Session(requests.Session):
    """Leaves redirects alone. requests would parse where they lead, and read their bodies whole into
    memory, even where it is told not to follow them. Reads the environment's proxies and certificates once
    for each origin: for small requests that took longer than everything else."""

    def __init__(self, trust: Trust) -> None:
        super().__init__()
        self._settings: dict[Origin, Any] = {}
        self.mount("https://", _Adapter(trust))
        self.mount("http://", _Adapter(trust))
        # A registry that sees a cookie takes us for a browser and asks for CSRF tokens (Harbor).
        self.cookies.set_policy(_NoCookies())

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        where = origin(url)
        if where not in self._settings:
            self._settings[where] = super().merge_environment_settings(url, *args, **kwargs)
        return self._settings[where]

    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Any:
        return iter(())


def as_given(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from putting a `.netrc` password over our Authorization header."""
    return request


class _NoCookies(DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False

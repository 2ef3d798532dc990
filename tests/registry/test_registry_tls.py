"""TLS with a real registry: who is believed, who gets to see a client certificate, and what is said of failures."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fixtures.authority import Authority, Proxy, keep
from fixtures.registry import DockerRegistry, MemoryBlob
from layerbuild import http
from layerbuild.errors import DestinationError, LayerbuildError
from layerbuild.registry import certificates
from layerbuild.registry.client import RegistryClient
from layerbuild.tls import Identity, Trouble, Trust, Untrusted

QUICK = http.Policy(retries=2, backoff=0.001, connect_timeout=5, read_timeout=10)
NAMES = ("IP:127.0.0.1", "DNS:registry.test")


@dataclass
class Home:
    """Where a user keeps certificates."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environ = {"HOME": str(self.root), "XDG_CONFIG_HOME": str(self.root / "config")}

    def keep(self, host: str, **files: Path) -> Path:
        """Files for a host: `ca_crt=PATH` is kept as `ca.crt`."""
        directory = self.root / "config" / "containers" / "certs.d" / host
        return keep(directory, {name.replace("_", "."): path for name, path in files.items()})

    def client(self, host: str, **more: str) -> RegistryClient:
        return RegistryClient(host, client=http.Client(QUICK), environ={**self.environ, **more})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return Home(tmp_path / "home")


Serve = Callable[..., DockerRegistry]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Registries that speak TLS, each kind started once."""
    running: dict[tuple[object, ...], DockerRegistry] = {}

    def start(pair: tuple[Path, Path], *, clients: Authority | None = None, minimum: str = "tls1.2") -> DockerRegistry:
        identity = (pair, clients, minimum)
        if identity not in running:
            more = {"clientcas": [str(clients.certificate)]} if clients else {}
            tls = {"certificate": str(pair[0]), "key": str(pair[1]), "minimumtls": minimum, **more}
            running[identity] = DockerRegistry(tmp_path_factory.mktemp("tls"), tls=tls)
        return running[identity]

    yield start
    for registry in running.values():
        registry.close()


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[Path, Path]:
    """What the usual registry shows."""
    return authority.sign("registry", *NAMES)


def _round_trip(client: RegistryClient) -> None:
    """A blob there and back."""
    blob = MemoryBlob(b"a blob that went over TLS")
    client.upload_blob("acme/tls", blob, advance=lambda _: None)
    assert b"".join(client.open_blob("acme/tls", blob.digest)) == blob.data


def _failure(client: RegistryClient) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        client.head_blob("acme/tls", "sha256:" + "0" * 64)
    return caught.value


# --- authorities -----------------------------------------------------------------------------------


def test_an_authority_kept_for_the_registry_is_believed(
    home: Home, authority: Authority, serve: Serve, pair: tuple[Path, Path]
) -> None:
    host = f"127.0.0.1:{serve(pair).port}"
    home.keep(host, ca_crt=authority.certificate)
    _round_trip(home.client(host))


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_bundles_by_the_usual_variables(
    home: Home, authority: Authority, serve: Serve, pair: tuple[Path, Path], name: str
) -> None:
    host = f"127.0.0.1:{serve(pair).port}"
    home.keep(host)  # an empty directory says that there is TLS on this machine, too
    assert _failure(home.client(host)).cause == (
        "nobody that is trusted here has signed its certificate (unable to get local issuer certificate)"
    )
    _round_trip(home.client(host, **{name: str(authority.certificate)}))


def test_a_bundle_that_cannot_be_used_is_named(
    home: Home, authority: Authority, serve: Serve, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    host = f"127.0.0.1:{serve(pair).port}"
    home.keep(host, ca_crt=authority.certificate)
    gone = _failure(home.client(host, SSL_CERT_FILE=str(tmp_path / "gone")))
    assert gone.cause == f"SSL_CERT_FILE names {tmp_path / 'gone'}, which cannot be read: No such file or directory"
    (tmp_path / "noise").write_text("no certificate")
    noise = _failure(home.client(host, CURL_CA_BUNDLE=str(tmp_path / "noise"), SSL_CERT_FILE="unused"))
    assert "CURL_CA_BUNDLE names" in (noise.cause or "") and "PEM" in (noise.cause or "")
    (directory := home.keep(host) / "ca.crt").write_text("")
    assert str(directory) in (_failure(home.client(host)).cause or "")


# --- servers that are not to be believed -----------------------------------------------------------


def test_unknown_authority(home: Home, serve: Serve, pair: tuple[Path, Path], tmp_path: Path) -> None:
    host = f"127.0.0.1:{serve(pair).port}"
    home.keep(host, ca_crt=Authority(tmp_path, "somebody-else").certificate)
    error = _failure(home.client(host))
    assert error.message == f"the registry {host} cannot be reached"
    assert "nobody that is trusted here has signed" in (error.cause or "")
    assert f"certs.d/{host}/ca.crt" in (error.hint or "") and "SSL_CERT_FILE" in (error.hint or "")


def test_another_name(home: Home, authority: Authority, serve: Serve) -> None:
    host = f"127.0.0.1:{serve(authority.sign('elsewhere', 'DNS:elsewhere.test')).port}"
    home.keep(host, ca_crt=authority.certificate)
    error = _failure(home.client(host))
    assert "another name" in (error.cause or "") and "127.0.0.1" in (error.cause or "")
    assert f"have one made for {host}" in (error.hint or "")


def test_expired(home: Home, authority: Authority, serve: Serve) -> None:
    host = f"127.0.0.1:{serve(authority.sign('old', *NAMES, days=-1)).port}"
    home.keep(host, ca_crt=authority.certificate)
    error = _failure(home.client(host))
    assert "has expired" in (error.cause or "") and "renewed" in (error.hint or "")


def test_plain_and_tls_are_told_apart(
    home: Home, registry: Any, authority: Authority, serve: Serve, pair: tuple[Path, Path]
) -> None:
    home.keep(registry.host, ca_crt=authority.certificate)
    assert f"--insecure {registry.host}" in (_failure(home.client(registry.host)).hint or "")
    host = f"127.0.0.1:{serve(pair).port}"
    assert f"certs.d/{host}/ca.crt" in (_failure(home.client(host)).hint or "")
    home.keep(host, ca_crt=authority.certificate)
    plain = RegistryClient(host, client=http.Client(QUICK), environ=home.environ, insecure=True)
    assert "leave --insecure out" in (_failure(plain).hint or "")


# --- client certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize("minimum", ["tls1.2", "tls1.3"])
def test_client_certificates(
    home: Home, authority: Authority, serve: Serve, pair: tuple[Path, Path], tmp_path: Path, minimum: str
) -> None:
    host = f"127.0.0.1:{serve(pair, clients=authority, minimum=minimum).port}"
    home.keep(host, ca_crt=authority.certificate)
    wanted = _failure(home.client(host))
    assert "wants a client certificate" in (wanted.cause or "")
    assert f"certs.d/{host}/client.cert and client.key" in (wanted.hint or "")
    certificate, key = Authority(tmp_path, "somebody-else").sign("alice")
    home.keep(host, client_cert=certificate, client_key=key)
    refused = _failure(home.client(host))
    # What the server says of it arrives only where it is quicker than our request.
    assert any(t.value in (refused.cause or "") for t in (Trouble.REFUSED, Trouble.HUNG_UP))
    assert f"certs.d/{host}/client.cert, or wherever" in (refused.hint or "")
    certificate, key = authority.sign("alice")
    home.keep(host, client_cert=certificate, client_key=key).joinpath("client.key").chmod(0o644)
    _round_trip(home.client(host))


@pytest.mark.parametrize(("there", "lacking"), [("cert", "key"), ("key", "cert")])
def test_half_a_pair_is_an_error(home: Home, authority: Authority, there: str, lacking: str) -> None:
    home.keep("registry.test", **{f"client_{there}": authority.certificate})
    with pytest.raises(DestinationError) as caught:
        home.client("registry.test")
    assert f"client.{there} is there, and client.{lacking} is not" in (caught.value.cause or "")
    assert "client.crt" in (caught.value.hint or "")


def test_pairs_that_cannot_be_used(home: Home, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("bob")
    _, other = authority.sign("carol")
    (noise := tmp_path / "noise").write_text("no key")
    (locked := tmp_path / "locked").write_text(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
        f"DEK-Info: AES-128-CBC,{'0' * 32}\n\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END RSA PRIVATE KEY-----\n"
    )
    where = ("https", "registry.test", 443)
    for wrong, words in (
        (other, "is not the key of"),
        (noise, "PEM form"),
        (locked, "encrypted"),
        (tmp_path / "gone", "cannot be read"),
    ):
        trust = Trust({}, identity=Identity(certificate=certificate, key=wrong, origin=where))
        trust.context(("https", "elsewhere.test", 443))
        with pytest.raises(Untrusted, match="TLS cannot be set up") as caught:
            trust.context(where)
        assert words in (caught.value.cause or "") and caught.value.trouble is Trouble.SETUP
    Trust({}, identity=Identity(certificate=certificate, key=key, origin=where)).context(where)


class _Watcher(ThreadingHTTPServer):
    """A server over TLS that asks everybody for a certificate, notes who showed one, and redirects."""

    daemon_threads = True

    def __init__(self, pair: tuple[Path, Path], authority: Authority) -> None:
        super().__init__(("127.0.0.1", 0), _Watched)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.shown: list[tuple[str, bool]] = []
        self.leads = ""
        self.port = int(self.server_address[1])
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Watched(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Watcher

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        self.server.shown.append((self.path, self.connection.getpeercert() not in (None, {})))
        if self.server.leads:
            self.send_response_only(307)
            self.send_header("Location", self.server.leads)
        else:
            self.send_response_only(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_the_client_certificate_stays_with_its_registry(
    home: Home, authority: Authority, pair: tuple[Path, Path]
) -> None:
    here, there = _Watcher(pair, authority), _Watcher(pair, authority)
    try:
        host = f"127.0.0.1:{here.port}"
        certificate, key = authority.sign("dora")
        home.keep(host, ca_crt=authority.certificate, client_cert=certificate, client_key=key)
        here.leads = f"https://127.0.0.1:{there.port}/storage"
        client = home.client(host)
        # The storage is believed by the registry's authority, and does not get to know who we are.
        assert (
            list(
                client.open_blob(
                    "acme/a", "sha256:" + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
                )
            )
            == []
        )
        assert [shown for _, shown in here.shown] == [True]
        assert there.shown == [("/storage", False)]
        # A source that lies on the same server is no registry.
        other = http.Client(QUICK, trust=Trust({}, authorities=(authority.certificate,)))
        other.request("GET", f"https://{host}/file", follow=False).close()
        assert here.shown[-1] == ("/file", False)
    finally:
        here.close()
        there.close()


# --- where certificates are looked for -------------------------------------------------------------


def test_the_first_directory_that_exists_counts(tmp_path: Path, authority: Authority) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "own")}
    host, system = "registry.test:5000", tmp_path / "etc"
    assert certificates.find(host, environ, system=system) is None
    for place in ("etc/docker", "etc/containers", "own/docker", "own/containers"):
        directory = keep(tmp_path / place / "certs.d" / host, {"ca.crt": authority.certificate})
        found = certificates.find(host, environ, system=system)
        assert found == certificates.Certificates(authorities=(directory / "ca.crt",))
    keep(tmp_path / "own/containers/certs.d" / host, dict.fromkeys(("b.cert", "b.key"), authority.certificate))
    keep(tmp_path / "own/containers/certs.d" / host, dict.fromkeys(("a.cert", "a.key"), authority.certificate))
    found = certificates.find(host, environ, system=system)
    assert found is not None and found.pair == (directory / "a.cert", directory / "a.key")
    # A port is part of a name, and a home without XDG_CONFIG_HOME has its usual place.
    assert certificates.find("registry.test", environ, system=system) is None
    home = {"HOME": str(tmp_path / "home")}
    keep(tmp_path / "home/.config/containers/certs.d" / host, {})
    assert certificates.find(host, home, system=tmp_path) == certificates.Certificates()
    # Docker Hub goes by two names.
    keep(system / "docker/certs.d/registry-1.docker.io", {})
    assert certificates.find("docker.io", {}, system=system) == certificates.Certificates()


# --- proxies ---------------------------------------------------------------------------------------


def test_through_a_proxy(
    home: Home,
    authority: Authority,
    serve: Serve,
    pair: tuple[Path, Path],
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = serve(pair, clients=authority)
    host = "registry.test:5000"
    certificate, key = authority.sign("eve")
    home.keep(host, ca_crt=authority.certificate, client_cert=certificate, client_key=key)
    proxy.ports[host] = registry.port
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "localhost")
    _round_trip(home.client(host))
    assert set(proxy.asked) == {host}
    proxy.status = 407
    error = _failure(home.client(host))
    assert error.cause == "the proxy does not let us through: it answered 407"
    # Who needs no proxy is asked directly, and nobody is called like that.
    asked = len(proxy.asked)
    monkeypatch.setenv("NO_PROXY", "registry.test")
    monkeypatch.setattr(socket, "getaddrinfo", _nobody)
    assert _failure(home.client(host)).cause == "Name or service not known"
    assert len(proxy.asked) == asked


def _nobody(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_sources_say_what_to_do_too(home: Home, serve: Serve, pair: tuple[Path, Path]) -> None:
    url = f"https://127.0.0.1:{serve(pair).port}/v2/"
    with pytest.raises(LayerbuildError) as caught:
        http.Client(QUICK, trust=Trust({})).request("GET", url)
    assert "nobody that is trusted here" in (caught.value.cause or "")
    assert "SSL_CERT_FILE" in (caught.value.hint or "")

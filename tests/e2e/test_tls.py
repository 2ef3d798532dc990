"""Every command that speaks to a registry does it with the same certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.authority import Authority, keep
from fixtures.project import Project
from fixtures.registry import DockerRegistry


@pytest.fixture
def strict(tmp_path: Path, authority: Authority) -> Iterator[str]:
    """A registry that takes nobody without a certificate."""
    certificate, key = authority.sign("strict", "IP:127.0.0.1")
    (tmp_path / "strict").mkdir()
    tls = {"certificate": str(certificate), "key": str(key), "clientcas": [str(authority.certificate)]}
    registry = DockerRegistry(tmp_path / "strict", tls=tls)
    yield f"127.0.0.1:{registry.port}"
    registry.close()


def test_commands_over_tls(project: Project, strict: str, authority: Authority) -> None:
    project.write({"layers/l.yaml": "x: {kind: files, files: {/opt/x: {content: hi}}}\n"})
    project.write({"recipes/r.yaml": "name: small\nlayers: [x]\ntags: [v1]\n"}).run("lock")
    certificates = keep(project.home / ".config" / "containers" / "certs.d" / strict, {"ca.crt": authority.certificate})
    pushed = project.run("push", f"{strict}/acme", check=False)
    pushed.failed(1, f"the registry {strict} cannot be reached", "client certificate", f"certs.d/{strict}/client.cert")
    certificate, key = authority.sign("user")
    keep(certificates, {"client.cert": certificate, "client.key": key})
    project.run("push", f"{strict}/acme")
    project.run("verify", f"{strict}/acme/small:v1")
    above = project.sibling("above")
    above.write({"layers/l.yaml": "y: {kind: files, files: {/opt/y: {content: ho}}}\n"})
    above.write({"recipes/r.yaml": f"name: more\nbase: {strict}/acme/small:v1\nlayers: [y]\ntags: [v1]\n"})
    above.run("lock", check=False).failed(1, strict, "ca.crt")
    home = {"HOME": str(project.home)}
    above.run("lock", env=home)
    above.run("push", f"{strict}/acme", env=home)
    (certificates / "client.key").unlink()
    project.run("plan", "--to", f"{strict}/acme", check=False).failed(
        1, f"the certificates for the registry {strict} cannot be used", "client.cert is there, and client.key is not"
    )

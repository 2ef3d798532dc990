"""Finding the certificates that Docker and podman keep for a registry, and saying what to do where one fails.

A directory is called like the registry, `HOST[:PORT]`, and holds authorities (`*.crt`) and client
certificates (`NAME.cert` with `NAME.key`): containers-certs.d(5), and "Verify repository client with
certificates" of Docker's manual. As podman does it, the first directory that exists is the one that counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from layerbuild.errors import DestinationError
from layerbuild.registry.reference import api_host
from layerbuild.tls import BUNDLES, Trouble

_SYSTEM = Path("/etc")


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """What is kept for a registry: PEM files.

    Attributes:
        authorities: believed there, besides the usual ones.
        pair: a client certificate and its key.
    """

    authorities: tuple[Path, ...] = ()
    pair: tuple[Path, Path] | None = None


def directories(host: str, environ: Mapping[str, str], *, system: Path = _SYSTEM) -> Iterator[Path]:
    """Where the certificates of `host` may be, the user's own before the machine's.

    Args:
        host: as in `Reference.host`; `docker.io` for Docker Hub.
        environ: XDG_CONFIG_HOME, HOME.
        system: where the machine's settings are.
    """
    home = environ.get("HOME")
    own = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else None)
    roots = [Path(own) / "containers", Path(own) / "docker"] if own else []
    for root in [*roots, system / "containers", system / "docker"]:
        for name in dict.fromkeys((host, api_host(host))):
            yield root / "certs.d" / name


def find(host: str, environ: Mapping[str, str], *, system: Path = _SYSTEM) -> Certificates | None:
    """What is kept for a registry, None without a directory. Arguments are those of `directories`.

    Raises:
        DestinationError: the directory cannot be read, or holds a certificate without its key, or a key alone.
    """
    for directory in directories(host, environ, system=system):
        try:
            names = sorted(path.name for path in directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unusable(host, f"{directory} cannot be read: {error.strerror}") from None
        return _read(host, directory, names)
    return None


def _read(host: str, directory: Path, names: list[str]) -> Certificates:
    certificates = {name.removesuffix(".cert") for name in names if name.endswith(".cert")}
    keys = {name.removesuffix(".key") for name in names if name.endswith(".key")}
    for name in sorted(certificates ^ keys):
        there, lacking = (".cert", ".key") if name in certificates else (".key", ".cert")
        cause = f"{directory / name}{there} is there, and {name}{lacking} is not"
        hint = f"put it beside the other; the certificate of an authority is called {name}.crt"
        raise _unusable(host, cause, hint)
    pair = min(certificates, default=None)
    return Certificates(
        authorities=tuple(directory / name for name in names if name.endswith(".crt")),
        pair=(directory / f"{pair}.cert", directory / f"{pair}.key") if pair is not None else None,
    )


def _unusable(host: str, cause: str, hint: str = "check who may read it") -> DestinationError:
    return DestinationError(f"the certificates for the registry {host} cannot be used", cause=cause, hint=hint)


def advice(trouble: Trouble, host: str) -> str | None:
    """What to do where the registry `host` and we do not believe each other; None where `trouble` is not that."""
    place = _place(host)
    return {
        Trouble.UNKNOWN: f"put the certificate of its authority into {place}/ca.crt, or name it in {BUNDLES[-1]}",
        Trouble.NAME: f"call the registry by a name that is in its certificate, or have one made for {host}",
        Trouble.EXPIRED: "check this machine's clock; if it is right, the registry's certificate must be renewed",
        Trouble.EARLY: "check this machine's clock",
        Trouble.WANTED: f"put the certificate and its key into {place}/client.cert and client.key",
        Trouble.REFUSED: f"see that {place}/client.cert, or wherever it is kept, is signed by the authority that the "
        "registry asks for, and has not expired",
        Trouble.HUNG_UP: f"run the command again; if {host} asks for client certificates, see that it takes "
        f"{place}/client.cert, or wherever it is kept, and that it has not expired",
        Trouble.PLAIN: f"if {host} speaks plain HTTP only, say so with --insecure {host}",
    }.get(trouble)


def advice_to_plain(host: str) -> str:
    """What to do where plain HTTP makes no sense to a registry."""
    return (
        f"if {host} speaks TLS: leave --insecure out; on this machine, where plain HTTP is usual, put the certificate "
        f"of its authority into {_place(host)}/ca.crt"
    )


def _place(host: str) -> str:
    return f"~/.config/containers/certs.d/{host}"

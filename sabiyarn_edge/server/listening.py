"""The socket that the server listens on: an address and port, or a path."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidInputError, shown

__all__ = ["is_local", "listening", "shown_address"]

BACKLOG = 128
SILENT_SECONDS = 30
"""A client that acknowledges nothing for so long is gone; what was written for it is dropped."""
_SOCKET_MODE = 0o660
"""Whoever shares the server's group, as a reverse proxy does, may connect."""


def is_local(host: str) -> bool:
    """Whether only this machine can connect: a Unix socket, or a loopback address.

    Raises:
        InvalidInputError: there is no such host.
    """
    return _is_path(host) or all(
        ipaddress.ip_address(address.partition("%")[0]).is_loopback for _, address in _resolved(host, 0)
    )


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens, until the block ends.

    Args:
        host: an address, a name, or the path of a Unix socket (anything with a slash).
        port: 0: any that is free.

    Raises:
        InvalidInputError: it cannot listen there.
    """
    if _is_path(host):
        with _listening_at(Path(host)) as listener:
            yield listener
        return
    family, address = _resolved(host, port)[0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit these: a peer that vanished, or never reads, does not stay for ever.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SILENT_SECONDS)
        try:
            listener.bind((address, port))
        except OSError as error:
            raise _cannot_listen(f"{host} port {port}", error) from error
        listener.listen(BACKLOG)
        yield listener


def shown_address(listener: socket.socket) -> str:
    """Where clients reach it."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def _is_path(host: str) -> bool:
    return "/" in host


def _resolved(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(
            f"--host is {shown(host)}, which is no address of this machine: {error}. Give one, as 127.0.0.1 or "
            "0.0.0.0, or the path of a Unix socket."
        ) from error
    return [(family, str(address[0])) for family, _, _, _, address in found]


@contextmanager
def _listening_at(path: Path) -> Iterator[socket.socket]:
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
            path.chmod(_SOCKET_MODE)
        except OSError as error:
            raise _cannot_listen(str(path), error) from error
        listener.listen(BACKLOG)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove the socket that an earlier server left behind when it was killed; never one that is answered."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InvalidInputError(
                f"--host is {path}, which is there already and is no socket. Give another path."
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise _cannot_listen(str(path), error) from error
        else:
            raise InvalidInputError(f"a server is listening on {path} already. End it, or give another path.")


def _cannot_listen(where: str, error: OSError) -> InvalidInputError:
    hint = (
        " Another program listens there: end it, or give another --port."
        if error.errno == errno.EADDRINUSE
        else ""
    )
    return InvalidInputError(f"cannot listen on {where}: {error.strerror or error}.{hint}")

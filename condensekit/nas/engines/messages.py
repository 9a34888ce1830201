"""Messages over a Unix socket: a letter, a payload, and file descriptors. Standard library only."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

_HEADER = struct.Struct("<cQ")
_MAX_DESCRIPTORS = 8  # largest number of file descriptors in a message


def send(sock: socket.socket, kind: str, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError if the other end is closed."""
    header = _HEADER.pack(kind.encode(), len(payload))
    sent = socket.send_fds(sock, [header], list(descriptors))
    sock.sendall(header[sent:] + payload)


def receive(sock: socket.socket) -> tuple[str, bytes, list[int]] | None:
    """Next message as (letter, payload, descriptors); None: the other end is closed."""
    try:
        header, descriptors, _, _ = socket.recv_fds(sock, _HEADER.size, _MAX_DESCRIPTORS)
        header += _exactly(sock, _HEADER.size - len(header)) if header else b""
        if not header:
            return None
        kind, length = _HEADER.unpack(header)
        return kind.decode(), _exactly(sock, length), descriptors
    except (ConnectionError, EOFError):
        return None


def _exactly(sock: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = sock.recv(min(1 << 20, length - len(parts)))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)

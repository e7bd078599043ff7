"""A loopback proxy before one MongoDB server that cuts a connection at a chosen command: before the server hears of it,
or after the server has answered and before the client hears of that. Reads whole messages; knows nothing of millpond.
"""

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Self

_OP_MSG = 2013


@dataclass
class Cut:
    """The nth to the last request of a command, once each; `after`: the server hears of it and answers."""

    command: bytes
    after: bool
    nth: int = 1
    times: int = 1
    done: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)


class Proxy:
    """Listens while its block is open."""

    def __init__(self, port: int, cut: Cut) -> None:
        self.upstream, self.cut = port, cut
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for held in (self._listener, *list(self._open)):
            _end(held)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                return
            self._open |= {client, server}
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """One request, one answer; a monitor's awaited answers stream on, so answers have a thread of their own."""
        doomed = threading.Event()
        answers = threading.Thread(target=self._answer, args=(client, server, doomed), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            while (message := _read(client)) is not None:
                chosen = self._chosen(message)
                if chosen and not self.cut.after:
                    break
                if chosen:
                    doomed.set()
                server.sendall(message)
                if chosen:
                    # Until the server's answer came, and was thrown away.
                    answers.join(30)
                    break
        _end(client)
        _end(server)

    def _answer(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (message := _read(server)) is not None:
                if doomed.is_set():
                    return
                client.sendall(message)
        _end(client)

    def _chosen(self, message: bytes) -> bool:
        if _name(message) != self.cut.command:
            return False
        with self._lock:
            self.cut.seen += 1
            if self.cut.seen < self.cut.nth or self.cut.done >= self.cut.times:
                return False
            self.cut.done += 1
            return True


def _end(held: socket.socket) -> None:
    with contextlib.suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)
    held.close()


def _exactly(held: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = held.recv(min(count - len(parts), 1 << 16))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _read(held: socket.socket) -> bytes | None:
    head = _exactly(held, 16)
    if head is None:
        return None
    rest = _exactly(held, struct.unpack_from("<i", head)[0] - 16)
    return None if rest is None else head + rest


def _name(message: bytes) -> bytes:
    """The command and its collection, as `insert orders`, of an OP_MSG whose first section is its body."""
    if struct.unpack_from("<i", message, 12)[0] != _OP_MSG or message[20] != 0 or message[25] != 2:
        return b""
    name, _, rest = message[26:].partition(b"\0")
    length: int = struct.unpack_from("<i", rest)[0]
    return name + b" " + rest[4 : 3 + length]

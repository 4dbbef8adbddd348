"""A network between a hospital and the coordinator that a test can cut."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.deployment.running import free_port


class Proxy:
    """Passes bytes on to a port of this machine, until it is cut.

    Args:
        target: Where the coordinator listens.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: socket.socket | None = None
        self._flows = threading.Event()
        self.mend()

    def mend(self) -> None:
        """Let connections through (again)."""
        self._flows.set()
        if self._server is None:
            self._server = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections, and reset those that are open."""
        server, self._server = self._server, None
        if server is not None:
            # Closing alone would not wake the thread that waits in accept.
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        """Bring nothing to the other side until it is mended, as where packets are lost without a word."""
        self._flows.clear()

    @property
    def connected(self) -> bool:
        """Whether a connection is open."""
        with self._lock:
            return bool(self._open)

    def close(self) -> None:
        """End it."""
        self.cut()
        self._flows.set()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while content := source.recv(1 << 16):
                self._flows.wait()
                sink.sendall(content)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open -= {source, sink}
            for connection in (source, sink):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

"""ssh's ProxyCommand to a Unix socket over a link with a round-trip time. Usage: delay MILLISECONDS SOCKET"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
import typing as t

CHUNK = 1 << 16


def pump(read: t.Callable[[int], bytes], write: t.Callable[[bytes], t.Any], end: t.Callable[[], t.Any], delay: float) -> None:
    """Forwards each piece ``delay`` seconds after it was read, until the end of the stream."""
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def take() -> None:
        data = b"-"
        while data:
            data = read(CHUNK)
            pieces.put((time.monotonic() + delay, data))

    threading.Thread(target=take, daemon=True).start()
    while True:
        due, data = pieces.get()
        time.sleep(max(0.0, due - time.monotonic()))
        if not data:
            end()
            return
        write(data)


def main() -> None:
    delay = float(sys.argv[1]) / 2000
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[2])
    there = (lambda size: os.read(0, size), connection.sendall, lambda: connection.shutdown(socket.SHUT_WR), delay)
    threading.Thread(target=pump, args=there, daemon=True).start()
    pump(connection.recv, lambda data: os.write(1, data), lambda: None, delay)


if __name__ == "__main__":
    main()

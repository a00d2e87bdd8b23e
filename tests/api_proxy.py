"""A proxy in front of the lab's API server, which disturbs what passes through it."""

from __future__ import annotations

import http.client
import http.server
import json
import ssl
import threading
import typing as t
from contextlib import contextmanager
from pathlib import Path

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.cluster.lab import Lab

# Of one connection alone, and replaced by ours.
HOP_HEADERS = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


class Request(t.NamedTuple):
    """What a client asks for; ``answered`` once the API server has answered."""

    method: str
    path: str
    answered: bool


@contextmanager
def disturbed(lab: Lab, directory: Path, disturb: Callable[[Request], int | None]) -> Iterator[Path]:
    """The path of a kubeconfig of the administrator that goes through the proxy.

    Args:
        lab: The lab.
        directory: Where the kubeconfig is written.
        disturb: Called before each request is passed on, and again before its answer is. A status that it returns is answered instead.
    """
    context = ssl.create_default_context(cafile=str(lab.directory / "pki" / "ca.crt"))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if status := disturb(Request(self.command, self.path, answered=False)):
                return self._refuse(status)
            upstream = http.client.HTTPSConnection(lab.server, context=context, timeout=300)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            if status := disturb(Request(self.command, self.path, answered=True)):
                upstream.close()
                return self._refuse(status)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_HEADERS:
                    self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while data := answer.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
            upstream.close()

        def _refuse(self, status: int) -> None:
            text = json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "disturbed", "code": status}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: t.Any) -> None:
            pass

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: t.Any) -> None:
            """A client that was killed is not an error."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kubeconfig = directory / "disturbed.kubeconfig"
        kubeconfig.write_text(lab.kubeconfig.read_text().replace(f"https://{lab.server}", f"http://127.0.0.1:{server.server_port}"))
        yield kubeconfig
        server.shutdown()

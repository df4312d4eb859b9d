"""What stands between a client and a server, well behaved or not: a real HTTP server."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: From method, path, headers and body to status, headers and body.
Reply = Callable[[str, str, Mapping[str, str], bytes], tuple[int, dict[str, str], bytes]]


@contextmanager
def front(reply: Reply) -> Iterator[str]:
    """A server that answers what `reply` says; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, content = reply(self.command, self.path, headers, body)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815 - names of the base class

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # who hung up is no failure
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def forward(port: int, path: str, method: str, headers: Mapping[str, str], body: bytes) -> Any:
    """What the server at `port` answers: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        kept = {k: v for k, v in headers.items() if k not in ("host", "content-length")}
        connection.request(method, path, body or None, kept)
        answer = connection.getresponse()
        dropped = ("content-length", "date", "server", "connection")
        found = {k: v for k, v in answer.getheaders() if k.lower() not in dropped}
        return answer.status, found, answer.read()
    finally:
        connection.close()

"""The web server of the page: sends its files, and the lines of answers as they are made.

Only the page itself may ask. A page of somebody else that is open in the same browser can send requests to this
machine, and even make a name of its own lead here ("DNS rebinding"). So each request must name this server as its
`Host`, and must not come from another page, as browsers say in `Origin` and `Sec-Fetch-Site`.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib.resources
import ipaddress
import itertools
import json
import logging
import secrets
import socket
import socketserver
import sys
import time
from collections.abc import Callable, Generator, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .fields import read_json
from .reading import Line

log = logging.getLogger(__name__)

MOST_BYTES = 2_000_000  # of a request
MOST_SECONDS = 10.0  # for the body of a request
NOTHING = "there is nothing at this address"
FAILED = {"error": "something went wrong that should not: the terminal says what"}
LINES = "application/x-ndjson"
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
POLICY = {  # what the page may load, and from where
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RefusedError(Exception):
    """A request that is refused: with a status of HTTP, and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """The server, which listens from the beginning, and answers within `serve_forever`.

    Args:
        answer: the lines of the answer to a request.
        host: the address at which it is to be reached.
        port: the port; if that is taken, or 0, one that is free.
        clock: the time in seconds.

    Attributes:
        files: the files of the page, by name.
        secret: the first part of the path of every address; empty if the server is only for this machine.

    Raises:
        OSError: this machine has no such address.
    """

    daemon_threads = True  # so that Ctrl-C need not wait for a text that is being made
    request_queue_size = 64
    allow_reuse_port = False  # a port of two servers would be one that is taken
    allow_reuse_address = sys.platform != "win32"  # there, it would be the same

    def __init__(
        self,
        answer: Callable[[Any], Iterator[Line]],
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.answer, self.clock = answer, clock
        self.host = f"[{host}]" if ":" in host else host
        self.secret = "" if is_loopback(host) else secrets.token_urlsafe(16)
        folder = importlib.resources.files(__package__) / "static"
        self.files = {file.name: file for file in folder.iterdir() if file.name.rpartition(".")[2] in TYPES}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listen(host, port)

    def _listen(self, host: str, port: int) -> None:
        """Takes the address, if need be with another port, and listens there."""
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            if not port:
                raise OSError(f"the page cannot be at {host}: {error.strerror}") from None
            self._listen(host, 0)
            log.warning("port %s cannot be had (%s): the page has port %s", port, error.strerror, self.port)

    @property
    def port(self) -> int:
        """The port at which it listens."""
        return int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """The address of the page."""
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}/{self.secret + '/' if self.secret else ''}"

    def server_bind(self) -> None:
        """Takes the address. `HTTPServer.server_bind` would also ask the network for the name of the machine."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs what a handler has not expected, in a line; that a reader has gone is not worth one."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("a request failed: %s: %s", type(error).__name__, error)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Handler(BaseHTTPRequestHandler):
    """One connection: its requests, one after another."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds for which a reader may be silent, or not take what is sent
    disable_nagle_algorithm = True  # a line is sent at once

    def do_GET(self) -> None:
        """Sends a file of the page."""
        self._answered(self._send_file)

    def do_HEAD(self) -> None:
        """Sends the headers of a file."""
        self._answered(self._send_file)

    def do_POST(self) -> None:
        """Sends the lines of an answer."""
        self._answered(self._send_answer)

    def _answered(self, send: Callable[[], None]) -> None:
        """Sends something, or says in a sentence why not."""
        try:
            self._check_reader()
            send()
        except RefusedError as refused:
            self.send_error(refused.status, str(refused))
        except OSError:  # the reader has gone, or has been silent for too long
            self.close_connection = True

    def _check_reader(self) -> None:
        """Checks that the request comes from the page, or from somebody who opens the page, also by a link elsewhere.

        Raises:
            RefusedError: it comes from another page, or takes this server for another one.
        """
        if self.request_version != "HTTP/1.1":
            raise RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1")
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._own_names():
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server has another name")
        origins, sites = self.headers.get_all("Origin", []), self.headers.get_all("Sec-Fetch-Site", [])
        is_foreign = {*origins} - {f"http://{hosts[0].lower()}"} or {*sites} - {"same-origin", "none"}
        if is_foreign and (origins or not self._opens_a_page()):
            raise RefusedError(HTTPStatus.FORBIDDEN, "another page may not use this one")

    def _opens_a_page(self) -> bool:
        """Whether a browser is to show a file in a tab of its own, where no other page can reach into it."""
        modes, places = (self.headers.get_all(f"Sec-Fetch-{name}", []) for name in ("Mode", "Dest"))
        return self.command == "GET" and modes == ["navigate"] and places == ["document"]

    def _own_names(self) -> set[str]:
        """What the header `Host` may be: names of this machine, and the address at which this reader reaches it."""
        address = self.connection.getsockname()[0]
        names = {*LOCAL_NAMES, self.server.host.lower(), f"[{address}]" if ":" in address else address}
        return {f"{name}:{self.server.port}" for name in names} | (names if self.server.port == 80 else set())

    def _name(self) -> str:
        """What is asked for: the path without the secret and the slash after it.

        Raises:
            RefusedError: the secret is not there.
        """
        path = self.path.partition("?")[0].encode("latin-1", "replace")
        beginning = f"/{self.server.secret}/".replace("//", "/").encode()
        if not hmac.compare_digest(path[: len(beginning)], beginning):
            raise RefusedError(HTTPStatus.NOT_FOUND, NOTHING)
        return path[len(beginning) :].decode("latin-1")

    def _send_file(self) -> None:
        """Sends a file of the page.

        Raises:
            RefusedError: there is no such file.
        """
        name = self._name() or "index.html"
        if name == "answer":
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "an answer is asked for by POST")
        if name not in self.server.files:
            raise RefusedError(HTTPStatus.NOT_FOUND, NOTHING)
        self._send(HTTPStatus.OK, TYPES[name.rpartition(".")[2]], self.server.files[name].read_bytes())

    def _send_answer(self) -> None:
        """Sends the lines of an answer as they are made. If the reader goes away, no further line is made.

        Raises:
            RefusedError: this is not a request for an answer.
        """
        name = self._name()
        if name != "answer":
            is_file = (name or "index.html") in self.server.files
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED if is_file else HTTPStatus.NOT_FOUND, NOTHING)
        with contextlib.closing(self._lines(self._request())) as lines:
            first = [*itertools.islice(lines, 1)]
            status = HTTPStatus.INTERNAL_SERVER_ERROR if first == [FAILED] else HTTPStatus.OK
            self._begin(status, {"Content-Type": LINES, "Transfer-Encoding": "chunked"})
            for line in itertools.chain(first, lines):
                if self._has_gone():
                    raise ConnectionAbortedError
                self._send_chunk(as_line(line))
        self._send_chunk(b"")

    def _request(self) -> Any:
        """The request in the body.

        Raises:
            ConnectionAbortedError: the reader has gone, or is too slow.
            RefusedError: the body is too large, or not JSON.
        """
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a request is application/json")
        n_bytes = self._length()
        data = b"".join(self._pieces(n_bytes, MOST_SECONDS))
        if len(data) < n_bytes:
            raise ConnectionAbortedError
        try:
            return read_json(data)
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None

    def _length(self) -> int:
        """The length of the body in bytes.

        Raises:
            RefusedError: the headers do not say it, or it is too much.
        """
        length = ",".join(self.headers.get_all("Content-Length", []))  # with a comma, it is no number
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "a request says its length, in one Content-Length")
        if len(length) > 10 or int(length) > MOST_BYTES:
            sentence = f"a request has at most {MOST_BYTES:,} bytes: the text is too long"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        return int(length)

    def _pieces(self, n_bytes: int, seconds: float) -> Iterator[bytes]:
        """What the reader sends: no more than n_bytes, and no longer than some seconds."""
        end = self.server.clock() + seconds
        while n_bytes > 0 and (left := end - self.server.clock()) > 0:
            self.connection.settimeout(left)
            piece = self.rfile.read1(min(n_bytes, 2**16))
            if not piece:
                break
            n_bytes -= len(piece)
            yield piece
        self.connection.settimeout(self.timeout)

    def _lines(self, request: Any) -> Generator[Line, None, None]:
        """The lines of an answer. An error that nobody has foreseen is logged, and a sentence takes its place."""
        try:
            yield from self.server.answer(request)
        except Exception as error:
            log.error("an answer failed: %s: %s", type(error).__name__, error)
            yield FAILED

    def _has_gone(self) -> bool:
        """Whether the reader has closed the connection."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        """Sends the status, and the headers."""
        self.send_response(status)
        closing = {"Connection": "close"} if self.close_connection else {}
        for name, value in {**HEADERS, **headers, **closing}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, content_type: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        """Sends something whole."""
        self._begin(status, {"Content-Type": content_type, "Content-Length": str(len(content)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_chunk(self, data: bytes) -> None:
        """Sends a part of something whose length is not known; an empty one ends it."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses a request with a sentence, and ends the connection."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        sentence = message if message and status == code else status.description or status.phrase
        is_line = self.command == "POST"
        content = as_line({"error": sentence}) if is_line else f"{sentence}\n".encode()
        self.close_connection = True
        self.request_version = self.protocol_version  # the status is sent whatever the request was
        headers = {"Allow": "GET, HEAD, POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
        with contextlib.suppress(OSError):
            self._send(status, LINES if is_line else TYPES["txt"], content, headers)
            self._discard()

    def _discard(self) -> None:
        """Takes what the reader may still send: otherwise the connection breaks before the reader has read why."""
        self.connection.shutdown(socket.SHUT_WR)
        for _ in self._pieces(4 * MOST_BYTES, seconds=1):
            pass

    def version_string(self) -> str:
        """The header `Server`: not which Python this is."""
        return "numpy_gpt2"

    def log_message(self, format: str, *args: Any) -> None:
        """Logs a request only where somebody wants to know everything."""
        log.debug(format, *args)


def as_line(line: Line) -> bytes:
    """A line of an answer, as JSON."""
    return json.dumps(line, allow_nan=False).encode() + b"\n"

"""A web server on this machine that stores files, and misbehaves on request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Request(NamedTuple):
    """One request, as the server saw it."""

    method: str
    path: str
    range: str | None  # the header
    status: int  # of the response
    authorization: str | None = None  # the header


@dataclass
class Fault:
    """What goes wrong with one GET request for a file. Without a fault, a request is answered correctly."""

    status: int = 200  # respond with this status, and without content
    cut: int | None = None  # close the connection after this many bytes
    stall: int | None = None  # send this many bytes, then nothing more, but keep the connection open
    flip: int | None = None  # change the byte at this position
    claim: int = 0  # add this to the true Content-Length
    offset: int = 0  # shift the beginning of the range
    change: bytes | None = None  # change the content of the file to this, for good
    total: str | None = None  # give this as the size of the whole file in a Content-Range
    nameless: bool = False  # do not send the ETag
    part_md5: str | None = None  # send this as the Content-MD5 of a range
    endless: bool = False  # send the content over and over


@dataclass
class Store:
    """The files of a server, and its behaviour."""

    files: dict[str, bytes] = field(default_factory=dict)  # by path
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))  # by path, in order
    etags: bool = True  # whether responses have an ETag
    md5: bool = True  # whether responses have a Content-MD5
    ranges: bool = True  # whether ranges are supported
    if_range: bool = True  # whether If-Range is respected
    refuse_head: int | None = None  # the status of the response to HEAD
    head_length: str | None = None  # the Content-Length in the response to HEAD, if not the true one; empty for none
    lengths: bool = True  # whether responses have a Content-Length
    redirect: bool = False  # whether to redirect, as Hugging Face's hub does, with a hash of the file
    elsewhere: str = ""  # the address of the server to redirect to, if it is another one
    endless_redirect: bool = False  # whether the body of a redirect has no end
    redirect_loop: bool = False  # whether to redirect HEAD to the same address, without end
    headers: dict[str, str] = field(default_factory=dict)  # further headers
    requests: list[Request] = field(default_factory=list)  # all requests so far
    sent: Callable[[str, int], object] = lambda path, n: None  # called with a path and the number of bytes sent so far
    # called with a path and the header Authorization; returns the status and headers of a refusal
    refusal: Callable[[str, str | None], tuple[int, dict[str, str]] | None] = lambda path, token: None
    closing: threading.Event = field(default_factory=threading.Event)  # set when the server shuts down

    def redirects(self, path: str) -> bool:
        """Whether the answer to a request is a redirect."""
        return self.redirect and not path.startswith("/elsewhere")

    def of(self, path: str, method: str = "GET") -> list[Request]:
        """The requests for one path."""
        return [request for request in self.requests if (request.method, request.path) == (method, path)]


COMMIT = "0123456789abcdef0123456789abcdef01234567"  # the version of each repository of the hub's double


class Hub(Store):
    """A server that behaves as Hugging Face's hub does: its addresses, redirects of large files, headers, refusals.

    Args:
        repositories: the files of each repository, by its name; each repository has one version.
        gated: the repositories that only somebody with the token may read.
        private: those that exist only for somebody with the token.
        token: the token.
    """

    def __init__(
        self,
        repositories: dict[str, dict[str, bytes]],
        gated: Sequence[str] = (),
        private: Sequence[str] = (),
        token: str = "",
    ) -> None:
        files = {
            f"/{repository}/resolve/{revision}/{name}": content
            for repository, contents in repositories.items()
            for name, content in contents.items()
            for revision in ("main", COMMIT)
        }
        super().__init__(files=files, md5=False, headers={"X-Repo-Commit": COMMIT}, refusal=self.refuse)
        self.elsewhere_store = Store(files=self.files, md5=False)  # to be served as well, and given as `elsewhere`
        self.repositories, self.gated, self.private, self.bearer = repositories, gated, private, f"Bearer {token}"

    def put(self, repository: str, name: str, content: bytes) -> None:
        """Adds a file to a repository, or replaces it."""
        self.repositories[repository][name] = content
        self.files |= dict.fromkeys((f"/{repository}/resolve/{each}/{name}" for each in ("main", COMMIT)), content)

    def remove(self, repository: str, name: str) -> None:
        """Removes a file from a repository."""
        del self.repositories[repository][name]
        for revision in ("main", COMMIT):
            del self.files[f"/{repository}/resolve/{revision}/{name}"]

    def redirects(self, path: str) -> bool:
        return path.endswith(".safetensors") and not path.startswith("/elsewhere")

    def refuse(self, path: str, authorization: str | None) -> tuple[int, dict[str, str]] | None:
        """The hub's answer if somebody may not have a file, or there is none."""
        if path.startswith("/elsewhere"):
            return None
        repository, _, rest = path.strip("/").partition("/resolve/")
        if authorization not in (None, self.bearer):
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
        if repository not in self.repositories or (repository in self.private and not authorization):
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}
        if repository in self.gated and not authorization:
            message = f"Access to model {repository} is restricted. You must have access to it and be authenticated."
            return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message}
        if rest.partition("/")[0] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}
        if path not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if self.refused():
            return
        if self.store.refuse_head:
            self.answer(self.store.refuse_head, {"Content-Length": "0"})
        elif self.store.redirect_loop:
            self.answer(302, {"Location": self.path, "Content-Length": "0"})
        elif not self.redirected():
            content = self.store.files.get(self.file())
            if content is None:
                self.answer(404, {"Content-Length": "0"})
            else:
                headers = self.describe(content)
                if self.store.head_length is not None:
                    headers["Content-Length"] = self.store.head_length
                self.answer(200, {name: value for name, value in headers.items() if value})

    def do_GET(self) -> None:
        store, path = self.store, self.file()
        if self.refused() or self.redirected():
            return
        content = store.files.get(path)
        fault = store.faults[path].pop(0) if store.faults.get(path) else Fault()
        if content is None or fault.status != 200:
            self.answer(404 if content is None else fault.status, {"Content-Length": "0"})
            return
        if fault.change is not None:
            content = store.files[path] = fault.change
        start = self.range_start(content)
        headers = self.describe(content)
        if fault.nameless:
            headers.pop("ETag", None)
        if start is not None and start >= len(content):
            self.answer(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
            return
        if start is not None:
            start += fault.offset
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{fault.total or len(content)}"
            headers.pop("Content-MD5", None)
            if fault.part_md5 is not None:
                headers["Content-MD5"] = fault.part_md5
        body = bytearray(content[start or 0 :])
        if fault.flip is not None:
            body[fault.flip] ^= 0x55
        if store.lengths:
            headers["Content-Length"] = str(len(body) + fault.claim)
            body = body[: len(body) + fault.claim]
        self.answer(200 if start is None else 206, headers)
        self.send(path, bytes(body), fault)

    def send(self, path: str, body: bytes, fault: Fault) -> None:
        stop = fault.cut if fault.cut is not None else fault.stall
        with contextlib.suppress(OSError):  # the client has closed the connection
            while fault.endless and not self.store.closing.is_set():
                self.wfile.write(body)
            for i in range(0, len(body[:stop]), 1000):
                self.wfile.write(body[:stop][i : i + 1000])
                self.store.sent(path, i + 1000)
        if stop is not None or fault.claim or not self.store.lengths:
            self.close_connection = True
        if fault.stall is not None:
            self.store.closing.wait()

    def file(self) -> str:
        return self.path.removeprefix("/elsewhere")

    def refused(self) -> bool:
        refusal = self.store.refusal(self.path, self.headers.get("Authorization"))
        if refusal:
            self.answer(refusal[0], {"Content-Length": "0", **refusal[1]})
        return bool(refusal)

    def redirected(self) -> bool:
        content = self.store.files.get(self.path)
        if content is None or not self.store.redirects(self.path):
            return False
        headers = {
            **self.store.headers,
            "Location": f"{self.store.elsewhere}/elsewhere{self.path}",
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            **({} if self.store.endless_redirect else {"Content-Length": "0"}),
        }
        self.answer(302, headers)
        if self.store.endless_redirect and self.command == "GET":
            self.send(self.path, content, Fault(endless=True))
            self.close_connection = True
        return True

    def describe(self, content: bytes) -> dict[str, str]:
        headers = dict(self.store.headers)
        if self.store.lengths:
            headers["Content-Length"] = str(len(content))
        if self.store.etags:
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        if self.store.md5:
            headers["Content-MD5"] = base64.b64encode(hashlib.md5(content).digest()).decode()
        return headers

    def range_start(self, content: bytes) -> int | None:
        """The offset of the requested range; None if the response has the whole file."""
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", self.describe(content).get("ETag")) == self.describe(content).get("ETag")
        return int(requested[1]) if requested and (same or not self.store.if_range) and self.store.ranges else None

    def answer(self, status: int, headers: dict[str, str]) -> None:
        request = Request(self.command, self.path, self.headers.get("Range"), status, self.headers.get("Authorization"))
        self.store.requests.append(request)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Connection", "close")
        self.end_headers()


@contextlib.contextmanager
def serving(store: Store) -> Iterator[str]:
    """Serves a store, and yields the address."""
    handler = type("StoreHandler", (Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        store.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()

"""The server with a real HTTP client, and with raw sockets where a client would not send what is to be sent."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from test_answers import WHOLE, with_vocabulary

import numpy_gpt2
from numpy_gpt2.page import server as server_module
from numpy_gpt2.page.answers import Answers
from numpy_gpt2.page.server import Handler, PageServer

STATIC = Path(numpy_gpt2.__file__).parent / "page" / "static"
JSON = {"Content-Type": "application/json"}
WAIT = 20  # seconds after which a test that hangs fails


def echo(request: Any) -> Iterator[dict[str, Any]]:
    """An answer of one line: the request."""
    yield {"asked": request}


@contextlib.contextmanager
def serving(answer: Callable[[Any], Iterator[dict[str, Any]]] = echo, **options: Any) -> Iterator[PageServer]:
    with PageServer(answer, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[PageServer]:
    with serving() as server:
        yield server


def connect(server: PageServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)


def get(server: PageServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body."""
    with contextlib.closing(connect(server)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def post(
    server: PageServer, body: Any, path: str = "/answer", headers: dict[str, str] = JSON
) -> tuple[int, list[dict[str, Any]]]:
    """The status and the lines."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with contextlib.closing(connect(server)) as connection:
        connection.request("POST", path, data, headers)
        response = connection.getresponse()
        return response.status, [json.loads(line) for line in response.read().splitlines()]


def raw(server: PageServer, request: bytes) -> tuple[int, bytes]:
    """The status and the body of the response to a request that is sent as it is, then no more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(request.replace(b"HOST", f"127.0.0.1:{server.port}".encode()))
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


class Stream:
    """A POST whose response is read line by line."""

    def __init__(self, server: PageServer, request: Any) -> None:
        self.connection = connect(server)
        self.connection.request("POST", "/answer", json.dumps(request), JSON)
        assert self.connection.sock
        self.socket = self.connection.sock
        self.response = self.connection.getresponse()

    def line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.response.readline())
        return line

    def go_away(self, abruptly: bool = False) -> None:
        if abruptly:  # what was sent and not read is lost, and the next write fails
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.response.close()
        self.connection.close()
        self.socket.close()


class TestFiles:
    def test_the_page(self, server: PageServer) -> None:
        for path in ("/", "/index.html", "/?query=1"):
            status, headers, body = get(server, path)
            assert (status, body) == (200, (STATIC / "index.html").read_bytes())
            assert headers["Content-Type"] == "text/html; charset=utf-8"

    def test_each_file_has_its_type(self, server: PageServer) -> None:
        types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
        files = [file for file in STATIC.iterdir() if file.name != "__pycache__"]
        assert len(files) > 3
        for file in files:
            status, headers, body = get(server, f"/{file.name}")
            assert (status, body) == (200, file.read_bytes()), file.name
            if file.suffix in types:
                assert headers["Content-Type"] == f"{types[file.suffix]}; charset=utf-8"

    def test_head(self, server: PageServer) -> None:
        status, headers, body = get(server, "/", "HEAD")
        assert (status, body) == (200, b"")
        assert headers["Content-Length"] == str((STATIC / "index.html").stat().st_size)

    def test_every_response_has_the_headers_that_protect_it(self, server: PageServer) -> None:
        responses = [get(server, "/"), get(server, "/nowhere"), get(server, "/", "PUT"), get(server, "/answer", "POST")]
        assert [status for status, _, _ in responses] == [200, 404, 405, 415]
        for _, headers, _ in responses:
            policy = headers["Content-Security-Policy"].split("; ")
            assert policy[:3] == ["default-src 'none'", "script-src 'self'", "style-src 'self'"]
            assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= {*policy}
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Set-Cookie" not in headers
            assert "Python" not in headers["Server"]

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "ANYTHING"])
    def test_other_methods(self, server: PageServer, method: str) -> None:
        assert get(server, "/", method)[0] == 405
        assert get(server, "/answer", method)[0] == 405

    def test_an_answer_is_not_a_file_and_a_file_no_answer(self, server: PageServer) -> None:
        assert get(server, "/answer")[0] == 405
        assert post(server, {}, "/index.html")[0] == 405
        assert post(server, {}, "/nowhere")[0] == 404

    @pytest.mark.parametrize(
        "path",
        [
            "/../server.py",
            "/%2e%2e/server.py",
            "/..%2fserver.py",
            "//etc/passwd",
            "/static/index.html",
            "/index.html/",
            "/./index.html",
            "/index%2ehtml",
            "/server.py",
            "/__pycache__",
            "/index.html%00.js",
            "http://127.0.0.1/index.html",
            "index.html",
            "*",
            "/\xff",
        ],
    )
    def test_paths_that_are_no_names_of_files(self, server: PageServer, path: str) -> None:
        status, body = raw(server, b"GET " + path.encode("latin-1") + b" HTTP/1.1\r\nHost: HOST\r\n\r\n")
        assert (status, body) == (404, b"there is nothing at this address\n")


class TestAnswers:
    def test_a_line_arrives_before_the_next_is_made(self) -> None:
        is_read = threading.Event()

        def answer(request: Any) -> Iterator[dict[str, Any]]:
            yield {"line": 1}
            yield {"was_read": is_read.wait(WAIT / 2)}

        with serving(answer) as server:
            stream = Stream(server, {})
            assert stream.line() == {"line": 1}
            is_read.set()
            assert stream.line() == {"was_read": True}
            assert stream.response.read() == b""
            assert stream.response.headers["Content-Type"] == "application/x-ndjson"

    @pytest.mark.parametrize("abruptly", [False, True])
    def test_when_the_reader_goes_away_no_further_step_is_made(self, abruptly: bool) -> None:
        steps, go, is_closed = list[int](), threading.Semaphore(0), threading.Event()

        def answer(request: Any) -> Iterator[dict[str, Any]]:
            try:
                for i in range(1000):
                    assert go.acquire(timeout=WAIT)
                    steps.append(i)
                    yield {"step": i}
            finally:
                is_closed.set()

        with serving(answer) as server:
            go.release(2)
            stream = Stream(server, {})
            assert [stream.line(), stream.line()] == [{"step": 0}, {"step": 1}]
            stream.go_away(abruptly)
            go.release(1000)
            assert is_closed.wait(WAIT)
            assert steps == [0, 1, 2]

    def test_two_readers_take_turns(self) -> None:
        """Both are in the middle of a text: the model is held for a step, not for a text."""
        answers = Answers(with_vocabulary())
        go = {1: threading.Semaphore(0), 2: threading.Semaphore(0)}

        def answer(request: Any) -> Iterator[dict[str, Any]]:
            for line in answers.answer(request):
                assert go[request["seed"]].acquire(timeout=WAIT)
                yield line

        def request(seed: int) -> dict[str, Any]:
            return {"kind": "suggest", "text": WHOLE, "n": 1, "max_new_tokens": 10, "seed": seed}

        with serving(answer) as server:
            for semaphore in go.values():
                semaphore.release()
            streams = {seed: Stream(server, request(seed)) for seed in go}
            made: dict[int, list[dict[str, Any]]] = {seed: [stream.line()] for seed, stream in streams.items()}
            for _ in range(10):
                for seed, stream in streams.items():
                    go[seed].release()
                    made[seed].append(stream.line())
            for seed in go:
                assert [line.get("row") for line in made[seed]] == [None, *[0] * 10]
                expected = answers.model.generate(WHOLE, max_new_tokens=10, seed=seed)
                assert "".join(line["text"] for line in made[seed][1:]) == expected
                go[seed].release(9)
                assert streams[seed].line() == {"row": 0, "finish_reason": "length"}

    def test_several_requests_on_one_connection(self, server: PageServer) -> None:
        with contextlib.closing(connect(server)) as connection:
            for n in range(3):
                connection.request("POST", "/answer", json.dumps(n), JSON)
                assert json.loads(connection.getresponse().read()) == {"asked": n}
            connection.request("GET", "/")
            assert connection.getresponse().status == 200

    def test_a_sentence_that_says_why_there_is_no_answer_is_an_answer(self) -> None:
        """The server has refused nothing, and Chromium would write another status to its console."""
        answers = Answers(with_vocabulary())
        with serving(answers.answer) as server:
            status, lines = post(server, {"kind": "tokens", "text": 5})
            assert (status, lines) == (200, [{"error": "text must be text, not 5"}])
            status, lines = post(server, {"kind": "tokens", "text": "x" * 1_000_001})
            assert status == 200
            assert "text has 1,000,001 characters" in lines[0]["error"]

    def test_an_answer_without_lines(self) -> None:
        with serving(lambda request: iter(())) as server:
            assert post(server, {}) == (200, [])

    @pytest.mark.parametrize("n_before", [0, 1])
    def test_an_error_that_nobody_has_foreseen(self, n_before: int, caplog: pytest.LogCaptureFixture) -> None:
        def answer(request: Any) -> Iterator[dict[str, Any]]:
            yield from [{"line": 1}] * n_before
            raise ZeroDivisionError("of something")

        with serving(answer) as server:
            status, lines = post(server, {})
        assert status == (200 if n_before else 500)
        assert lines[:-1] == [{"line": 1}] * n_before
        assert "of something" not in lines[-1]["error"]
        (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert record.getMessage() == "an answer failed: ZeroDivisionError: of something"
        assert not record.exc_info

    def test_an_error_of_the_server_itself_is_one_line_in_the_log(
        self, server: PageServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
    ) -> None:
        def broken(*args: Any) -> None:
            raise ZeroDivisionError("of something")

        monkeypatch.setattr(Handler, "_send_file", broken)
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            get(server, "/")
        assert post(server, 1) == (200, [{"asked": 1}])
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
            "a request failed: ZeroDivisionError: of something"
        ]
        assert "Traceback" not in capfd.readouterr().err


class TestRefused:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "example.com"},
            {"Host": "127.0.0.1"},
            {"Host": "127.0.0.1:1"},
            {"Host": "example.com:PORT"},
            {"Host": "127.0.0.1.example.com:PORT"},
            {"Host": ""},
            {"Origin": "http://example.com"},
            {"Origin": "http://127.0.0.1:1"},
            {"Origin": "https://127.0.0.1:PORT"},
            {"Origin": "http://localhost:PORT"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
        ids=str,
    )
    def test_other_hosts_and_origins(self, server: PageServer, headers: dict[str, str]) -> None:
        headers = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
        assert get(server, "/", **headers)[0] == 403
        status, lines = post(server, {}, headers={**JSON, **headers})
        assert status == 403
        assert [*lines[0]] == ["error"]

    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "localhost:PORT"},
            {"Host": "LOCALHOST:PORT", "Origin": "http://localhost:PORT"},
            {"Host": "[::1]:PORT"},
            {"Origin": "http://127.0.0.1:PORT", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ],
        ids=str,
    )
    def test_this_host_and_origin(self, server: PageServer, headers: dict[str, str]) -> None:
        headers = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
        assert get(server, "/", **headers)[0] == 200
        assert post(server, 1, headers={**JSON, **headers}) == (200, [{"asked": 1}])

    @pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jso"])
    def test_other_content_types(self, server: PageServer, content_type: str) -> None:
        """A page of somebody else may send these without asking first."""
        assert post(server, {}, headers={"Content-Type": content_type})[0] == 415
        assert post(server, 1, headers={"Content-Type": "Application/JSON; charset=utf-8"})[0] == 200

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (b"", "is not JSON"),
            (b"{", "is not JSON"),
            (b'{"kind": NaN}', "NaN is not a number of JSON"),
            (b"[-Infinity]", "-Infinity is not a number of JSON"),
            (b'"\xff"', "is not JSON in UTF-8"),
            ('"a"'.encode("utf-16"), "is not JSON in UTF-8"),
            (b"[" * 100_000, "is not JSON"),
            (b"9" * 10_000, "is not JSON"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_bodies_that_are_not_json(self, server: PageServer, body: bytes, sentence: str) -> None:
        status, (line,) = post(server, body)
        assert status == 400
        assert sentence in line["error"]

    @pytest.mark.parametrize("is_sent", [True, False])
    def test_a_huge_request(self, server: PageServer, is_sent: bool) -> None:
        """Whether or not its body comes; whoever sends the body gets to read the answer afterwards."""
        head = (
            b"POST /answer HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: 7000000\r\n\r\n"
        )
        status, body = raw(server, head + b" " * 7_000_000 * is_sent)
        assert status == 413
        assert json.loads(body) == {"error": "a request has at most 2,000,000 bytes: the text is too long"}
        assert post(server, b'"' + b"x" * 1_999_999 + b'"')[0] == 413
        assert post(server, b'"' + b"x" * 1_999_998 + b'"')[0] == 200

    @pytest.mark.parametrize(
        ("lines", "status"),
        [
            ("", 411),
            ("Content-Length: -1\r\n", 411),
            ("Content-Length: +5\r\n", 411),
            ("Content-Length: 1e3\r\n", 411),
            ("Content-Length: 2\r\nContent-Length: 2\r\n", 411),
            ("Transfer-Encoding: chunked\r\n", 411),
            ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 411),
            (f"Content-Length: {'9' * 5000}\r\n", 413),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_the_length_of_a_request(self, server: PageServer, lines: str, status: int) -> None:
        head = f"POST /answer HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n{lines}\r\n"
        found, body = raw(server, head.encode())
        assert found == status
        assert [*json.loads(body)] == ["error"]

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 403),
            (b"GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 403),
            (b"GET / HTTP/1.0\r\nHost: HOST\r\n\r\n", 505),
            (b"GET / HTTP/2.0\r\nHost: HOST\r\n\r\n", 505),
            (b"GET / HTTP/x\r\n\r\n", 400),
            (b"nonsense\r\n\r\n", 400),
            (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
            (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_malformed_requests(self, server: PageServer, request_: bytes, status: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
            connection.sendall(request_.replace(b"HOST", f"127.0.0.1:{server.port}".encode()))
            response = b"".join(iter(lambda: connection.recv(2**16), b""))
        assert response.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"<" not in response
        assert get(server, "/")[0] == 200

    def test_a_reader_that_goes_away_before_the_request_is_complete(
        self, server: PageServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        head = f"POST /answer HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        for begun in ("", "PO", head, f"{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n[1,"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
                connection.sendall(begun.encode())
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(2**16):
                    pass
        assert get(server, "/")[0] == 200
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class TestLinksFromOtherPages:
    """A link to the page, as terminals in a browser show it, opens the page; nothing else may come from elsewhere."""

    LINK: ClassVar = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

    def test_a_link_opens_the_page(self, server: PageServer) -> None:
        assert get(server, "/", **self.LINK)[0] == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://example.com"},
            {"Origin": "null"},
            {"Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Mode": "cors"},
            {"Sec-Fetch-Dest": "iframe"},
            {"Sec-Fetch-Dest": "object"},
            {"Host": "example.com"},
        ],
        ids=str,
    )
    def test_what_is_no_link_is_refused(self, server: PageServer, headers: dict[str, str]) -> None:
        assert get(server, "/", **{**self.LINK, **headers})[0] == 403

    def test_a_request_for_an_answer_is_no_link(self, server: PageServer) -> None:
        assert post(server, 1, headers={**JSON, **self.LINK})[0] == 403


class TestSlowReaders:
    def test_a_request_has_to_be_there_in_time(self) -> None:
        times = itertools.chain([0.0, 0.0], itertools.repeat(1000.0))
        with serving(clock=lambda: next(times)) as server:
            head = f"POST /answer HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
            with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
                connection.sendall(f"{head}Content-Length: 50\r\n\r\n[1,".encode())
                assert connection.recv(1) == b""

    def test_what_is_sent_in_vain_is_not_taken_for_long(self) -> None:
        """One byte each tenth of a second, without an end."""
        handler, times = Handler.__new__(Handler), itertools.count()
        handler.server = SimpleNamespace(clock=lambda: next(times) / 10)  # type: ignore[assignment]
        handler.connection = SimpleNamespace(shutdown=lambda how: None, settimeout=lambda s: None)
        handler.rfile = SimpleNamespace(read1=lambda n: b"x")  # type: ignore[assignment]
        handler._discard()
        assert next(times) < 20


class TestSilentReaders:
    def test_they_do_not_keep_others_waiting(self, server: PageServer) -> None:
        with contextlib.ExitStack() as stack:
            for begun in (b"", b"GET", b"POST /answer HTTP/1.1\r\nContent-Length: 5\r\n\r\n") * 20:
                connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT)
                stack.enter_context(connection).sendall(begun)
            assert get(server, "/")[0] == 200
            assert post(server, 1)[0] == 200

    def test_they_are_let_go(self, server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Handler.timeout <= 60
        monkeypatch.setattr(Handler, "timeout", 0.05)
        for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
                connection.sendall(begun)
                assert connection.recv(1) == b""


class TestAddress:
    def test_of_this_machine_alone(self, server: PageServer) -> None:
        assert server.address == f"http://127.0.0.1:{server.port}/"
        assert server.server_address[0] == "127.0.0.1"

    def test_for_others_it_has_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_module, "is_loopback", lambda host: False)  # it is, so that nobody else can reach it
        with serving() as server, serving() as other:
            secret = server.address.split("/")[3]
            assert server.address == f"http://127.0.0.1:{server.port}/{secret}/"
            assert len(secret) >= 22
            assert secret != other.address.split("/")[3]
            assert get(server, f"/{secret}/")[0] == get(server, f"/{secret}/index.html")[0] == 200
            assert post(server, 1, f"/{secret}/answer") == (200, [{"asked": 1}])
            wrong = (
                "/",
                "/index.html",
                f"/{secret}",
                f"/{secret[:-1]}/",
                f"/{secret}x/",
                f"/x{secret}/",
            )
            for path in (*wrong, f"/{secret.swapcase()}/", f"/x/{secret}/", f"/?{secret}", f"/{secret}/../"):
                assert get(server, path)[0] == 404, path
            assert post(server, 1, "/answer")[0] == post(server, 1, f"/{secret[:-1]}/answer")[0] == 404

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("127.0.0.1", True),
            ("127.1.2.3", True),
            ("localhost", True),
            ("::1", True),
            ("0.0.0.0", False),
            ("::", False),
            ("192.168.1.5", False),
            ("localhost.example.com", False),
        ],
    )
    def test_loopback(self, host: str, expected: bool) -> None:
        assert server_module.is_loopback(host) == expected

    def test_over_ipv6(self) -> None:
        try:
            with serving(host="::1") as server:
                assert server.address == f"http://[::1]:{server.port}/"
                with contextlib.closing(http.client.HTTPConnection("::1", server.port, timeout=WAIT)) as connection:
                    connection.request("GET", "/")
                    assert connection.getresponse().status == 200
        except OSError as error:
            pytest.skip(f"there is no IPv6 here: {error}")

    def test_a_port_that_is_taken(self, server: PageServer, caplog: pytest.LogCaptureFixture) -> None:
        with serving(port=server.port) as other:
            assert other.port != server.port
            assert get(other, "/")[0] == 200
            (record,) = caplog.records
            assert record.getMessage().startswith(f"port {server.port} cannot be had (")
            assert record.getMessage().endswith(f": the page has port {other.port}")

    def test_an_address_of_another_machine(self) -> None:
        for port in (0, 8124):
            with pytest.raises(OSError, match=r"^the page cannot be at 192\.0\.2\.1: \w+"):
                PageServer(echo, "192.0.2.1", port)

    def test_the_network_is_not_asked_for_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert issubclass(PageServer, ThreadingHTTPServer)
        monkeypatch.setattr(socket, "getfqdn", lambda *args: pytest.fail("somebody asks for the name of this machine"))
        with serving() as server:
            assert get(server, "/")[0] == 200

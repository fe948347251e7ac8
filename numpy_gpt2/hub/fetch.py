"""Fetches one file from a web server: completely or not at all, however unreliable the connection.

The bytes received so far are kept in a partial file beside the final one. Its name depends on the version of the
file on the server (the `ETag`). The next attempt, in this process or a later one, requests only the rest
(`Range`), and only of the same version (`If-Range`). If the server has a new version by then, or cannot send
ranges, the file is fetched from the beginning.

Source: RFC 9110, sections 8.8.3 (ETag), 13.1.5 (If-Range) and 14 (Range); RFC 1864 (Content-MD5).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urljoin

import requests
import urllib3
from requests.utils import requote_uri
from tqdm import tqdm

from ..machine.files import digest, sync

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte from the server, after which a connection counts as broken
PAUSES = (1, 2, 4, 8, 16)  # seconds before each retry; from the start again after an attempt that made progress
CHUNK = 2**16  # bytes written at a time, and so the most that is lost when the process is killed
MOST_REDIRECTS = 20
LEAST, PERIOD = 60_000, 60.0  # a server that sends fewer bytes in so many seconds counts as broken, too
HUB_ERRORS = {  # what the header X-Error-Code of Hugging Face's hub means, or else X-Error-Message
    "Invalid credentials in Authorization header": (
        "it does not accept the token, in HF_TOKEN or of `hf auth login`: renew the token or, for a public model, "
        "remove it"
    ),
    "RepoNotFound": "there is no such repository, or it is private: then HF_TOKEN must be a token that may read it",
    "RevisionNotFound": "the repository has no such revision",
    "GatedRepo": "its authors give access on request: ask for it on the model's page, and set HF_TOKEN to your token",
}

T = TypeVar("T")


class TransientError(Exception):
    """A failure that may not occur at the next attempt."""

    def __init__(self, message: str, n_received: int = 0) -> None:
        super().__init__(message)
        self.n_received = n_received  # bytes in the partial file


class Remote(NamedTuple):
    """What a server announces about a file."""

    size: int | None  # in bytes; None if the server does not give it
    etag: str  # identifies this version of the file; empty if the server gives no strong ETag
    digests: dict[str, str]  # hashes of the whole file, by the name of the hash function in hashlib


class Session(requests.Session):
    """A session that follows no redirects, since requests first reads the whole body of each, however long."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, for every response: there is nothing to follow."""


class Fetcher:
    """Fetches files over one session, and retries after transient failures.

    Args:
        timeout: seconds without a byte from the server, after which a connection counts as broken.
        sleep: waits for a number of seconds.
        pauses: seconds before each retry. As many retries in a row without progress are made, then it gives up.
        clock: gives the time in seconds.
        token: the user's token, if there is one.
        token_for: the address of the server that gets the token. No other does, not even by a redirect.

    Attributes:
        known: what a server has announced about each file that was asked for, by address, until the file is fetched.
    """

    def __init__(
        self,
        timeout: float = TIMEOUT,
        sleep: Callable[[float], object] = time.sleep,
        pauses: Sequence[float] = PAUSES,
        clock: Callable[[], float] = time.monotonic,
        token: str | None = None,
        token_for: str = "",
    ) -> None:
        self.session = Session()
        self.known: dict[str, Remote] = {}
        self.timeout = timeout
        self.sleep = sleep
        self.pauses = pauses
        self.clock = clock
        self.token = token
        self.token_for = f"{token_for}/".lower()  # as requests writes hosts

    def ask(self, url: str) -> Remote:
        """Asks the server about a file, without receiving it; once, until the file is fetched.

        Raises:
            FileNotFoundError: the server has no such file.
            OSError: the server cannot be reached, or refuses.
        """
        if url not in self.known:
            self.known[url] = self._retry(url, lambda: self._ask(url))
        return self.known[url]

    def fetch(
        self,
        url: str,
        file: Path,
        sizes: range | None = None,
        check: Callable[[Path], object] = lambda _: None,
    ) -> bool:
        """Fetches a file, unless it is there and has the hash of the server's. An earlier partial file is completed.

        Args:
            url: the address.
            file: where to put the file. No other process may fetch to there at the same time: see `files.locked`.
            sizes: the sizes in bytes that the file may have, if they are known.
            check: raises a ValueError if the content of a received file is wrong.

        Returns:
            Whether the file is new; False if it was there.

        Raises:
            FileNotFoundError: the server has no such file.
            OSError: the server cannot be reached, refuses, or repeatedly breaks the connection; or the disk is
                full.
            ValueError: the server has something else, of which nothing is kept.
        """
        return self._retry(url, lambda: self._fetch(url, file, sizes, check))

    def _retry(self, url: str, attempt: Callable[[], T]) -> T:
        """Repeats an attempt until it succeeds, or until too many in a row have failed without progress."""
        n_failures, most_received = 0, 0
        while True:
            try:
                return attempt()
            except TransientError as error:
                n_failures = 1 if error.n_received > most_received else n_failures + 1
                most_received = max(most_received, error.n_received)
                if n_failures > len(self.pauses):
                    raise OSError(
                        f"{url}: {error}, {n_failures} times in a row; check the network (HTTPS_PROXY names a proxy), "
                        "then try again: the download will be resumed"
                    ) from error
                pause = self.pauses[n_failures - 1]
                log.warning("%s: %s; trying again in %d s", url, error, pause)
                self.sleep(pause)

    def _ask(self, url: str) -> Remote:
        for method in ("HEAD", "GET"):  # GET, without reading the body, for servers that do not allow HEAD
            with self._request(method, url) as response:
                if method == "GET" or response.status_code not in (403, 405, 501):
                    check_status(url, response)
                    break
        remote = describe(response)
        return remote._replace(size=remote.size or None)  # some servers give the size of an empty body, 0

    def _fetch(self, url: str, file: Path, sizes: range | None, check: Callable[[Path], object]) -> bool:
        """Makes one attempt at `fetch`."""
        remote = self.known.pop(url, None) or self._ask(url)
        check_size(url, remote.size, sizes)
        try:
            if remote.digests and file.exists() and has_digests(file, remote):
                check(file)
                return False
            part = part_file(url, file, remote)
            remove_parts(file, keep=part)
            n_received = part.stat().st_size if remote.etag and part.exists() else 0
            if n_received == 0 or n_received != remote.size:
                remote, part = self._receive(url, file, remote, n_received, sizes)
            verify(part, remote)
            check_size(url, part.stat().st_size, sizes)
            check(part)
        except ValueError as error:
            remove_parts(file)
            raise ValueError(f"{url} is not what it should be: {error}") from error
        sync(part)
        part.replace(file)
        return True

    def _receive(
        self, url: str, file: Path, remote: Remote, n_received: int, sizes: range | None
    ) -> tuple[Remote, Path]:
        """Appends the rest of a file to its partial file, or starts from the beginning.

        Args:
            url: the address.
            file: the final file.
            remote: what the server has announced about the file.
            n_received: the size of the partial file.
            sizes: as for `fetch`.

        Returns:
            What the server announces about the version that was received, and the partial file with it.
        """
        headers = {"Range": f"bytes={n_received}-", "If-Range": remote.etag} if n_received else {}
        part = part_file(url, file, remote)
        with self._request("GET", url, headers) as response:
            if response.status_code == 206 and is_the_rest(response, remote, n_received):
                total = response.headers["Content-Range"].rpartition("/")[2]
                remote = remote._replace(size=remote.size if total == "*" else int(total))
            elif response.status_code in (206, 416):
                part.unlink(missing_ok=True)
                raise TransientError("the server cannot resume the download")
            else:
                check_status(url, response)
                announced, remote = remote, describe(response)  # the file may have changed since it was announced
                both = (announced.size, remote.size)
                if remote.etag == announced.etag and None not in both and remote.size != announced.size:
                    raise TransientError(f"the server first announced {both[0]:,} bytes, then {both[1]:,}")
                remove_parts(file)
                n_received, part = 0, part_file(url, file, remote)
            with (
                part.open("ab" if n_received else "wb", buffering=0) as opened,
                self._progress_bar(file.name, n_received, remote.size) as progress,
            ):
                try:
                    for chunk in self._chunks(response):
                        write(opened, chunk, file)
                        progress.update(len(chunk))
                        if sizes is not None and opened.tell() >= sizes.stop:
                            check_size(url, opened.tell(), sizes)
                except urllib3.exceptions.HTTPError as error:
                    raise TransientError(in_words(error), opened.tell()) from error
        return remote, part

    def _progress_bar(self, name: str, n_received: int, size: int | None) -> Any:
        """A progress bar, unless no messages are wanted."""
        is_quiet = not log.isEnabledFor(logging.WARNING)
        return tqdm(desc=name, initial=n_received, total=size, unit="B", unit_scale=True, disable=is_quiet)

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body of a response, piece by piece as it arrives.

        Raises:
            TransientError: it arrives too slowly.
            urllib3.exceptions.HTTPError: the connection breaks.
        """
        since, n_bytes = self.clock(), 0
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            yield chunk
            n_bytes += len(chunk)
            if self.clock() - since >= PERIOD:
                if n_bytes < LEAST:
                    raise TransientError(f"the server sends less than {LEAST / PERIOD / 1000:g} kB a second")
                since, n_bytes = self.clock(), 0

    @contextlib.contextmanager
    def _request(self, method: str, url: str, headers: dict[str, str] | None = None) -> Iterator[requests.Response]:
        """Sends a request, and follows redirects. The body of the response is not read yet."""
        redirects: list[requests.Response] = []
        response = self._send(method, url, url, headers)
        while response.is_redirect:
            response.close()
            if len(redirects) == MOST_REDIRECTS:
                raise OSError(f"{url}: the server redirects more than {MOST_REDIRECTS} times")
            redirects.append(response)
            response = self._send(method, url, redirect_target(url, response), headers)
        response.history = redirects
        with response:
            yield response

    def _send(self, method: str, url: str, address: str, headers: dict[str, str] | None) -> requests.Response:
        """Sends one request to an address, to which the one that was asked for, `url`, may have been redirected."""
        try:
            return self.session.request(
                method,
                address,
                headers={"Accept-Encoding": "identity", **(headers or {})},  # without compression in transit
                auth=self._authorize if self.token and address.lower().startswith(self.token_for) else None,
                stream=True,
                timeout=self.timeout,
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            if isinstance(error, requests.exceptions.SSLError):
                raise OSError(
                    f"{url}: the server's certificate cannot be trusted ({error}); behind a proxy that opens encrypted "
                    "connections, REQUESTS_CA_BUNDLE must name the file with the proxy's certificate"
                ) from error
            raise TransientError(in_words(error)) from error
        except (requests.RequestException, ValueError) as error:  # an invalid address
            raise OSError(f"{url}: {error}") from error

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Adds the token to a request."""
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def redirect_target(url: str, response: requests.Response) -> str:
    """The address to which a server redirects a request for `url`.

    Raises:
        OSError: it is not an address on the web.
    """
    location = response.headers["Location"]
    with contextlib.suppress(ValueError):  # not text, or malformed
        target = urljoin(response.url, requote_uri(location.encode("latin-1").decode()))
        requests.Request("GET", target).prepare()
        if location and re.match(r"https?://[^/?#%]+([/?#]|$)", target):
            return target
    raise OSError(f"{url}: the server redirects to {location!r}, which is not an address")


def write(opened: io.FileIO, chunk: bytes, file: Path) -> None:
    """Writes the next bytes to an open partial file, which has no buffer: closing the file must not fail again.

    Args:
        opened: the partial file.
        chunk: the bytes.
        file: the final file, to name in an error message.

    Raises:
        OSError: the bytes cannot be written.
    """
    try:
        while chunk:
            chunk = chunk[opened.write(chunk) :]
    except OSError as error:
        raise OSError(
            f"{file} cannot be written ({error.strerror or error}); make room, then try again: it will be resumed"
        ) from error


def in_words(error: Exception) -> str:
    """The description of a failed connection in an error message."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "no connection to the proxy"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "no answer in time"
    return "no connection, or a broken one"


def check_status(url: str, response: requests.Response) -> None:
    """Checks that a response has the status of one with the whole file.

    Raises:
        FileNotFoundError: the server has no such file.
        OSError: the server refuses.
        TransientError: the server cannot answer at the moment.
    """
    status = f"the server answers {response.status_code} {response.reason}"
    code, message = (response.headers.get(f"X-Error-{name}", "") for name in ("Code", "Message"))
    if response.status_code in (404, 410) and code not in HUB_ERRORS:
        raise FileNotFoundError(f"{url}: {status}: it has no such file")
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise TransientError(status)
    if response.status_code != 200:
        reason = HUB_ERRORS.get(code) or HUB_ERRORS.get(message, message[:200])
        raise OSError(f"{url}: {status}{reason and ': '}{reason}")


def describe(response: requests.Response) -> Remote:
    """What the headers of a response with the whole file announce about it.

    For a large file, Hugging Face's hub answers with a redirect that has the SHA-256 as `X-Linked-ETag`.
    """
    size = response.headers.get("Content-Length", "")
    etag = response.headers.get("ETag", "")
    digests = {}
    with contextlib.suppress(ValueError):  # the header is not base64
        md5 = base64.b64decode(response.headers.get("Content-MD5", ""), validate=True)
        if len(md5) == 16:
            digests["md5"] = md5.hex()
    for answer in (*response.history, response):
        size = size or answer.headers.get("X-Linked-Size", "")
        if sha256 := re.fullmatch('"?([0-9a-f]{64})"?', answer.headers.get("X-Linked-ETag", "")):
            digests["sha256"] = sha256[1]
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return Remote(None, "", {})  # the headers describe the compressed form
    return Remote(int(size) if size.isdecimal() else None, "" if etag.startswith("W/") else etag, digests)


def is_the_rest(response: requests.Response, remote: Remote, n_received: int) -> bool:
    """Whether a partial response begins where the partial file ends, and belongs to the same version of the file."""
    content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if content_range is None:
        return False
    start, total = content_range.groups()
    return (
        int(start) == n_received
        and (remote.size is not None if total == "*" else remote.size in (None, int(total)))
        and response.headers.get("ETag", remote.etag) == remote.etag
    )


def part_file(url: str, file: Path, remote: Remote) -> Path:
    """The partial file for one version of a file."""
    version = hashlib.sha256(f"{url} {remote.etag}".encode()).hexdigest()[:16]
    return file.with_name(f".{file.name}.{version}.part")


def remove_parts(file: Path, keep: Path | None = None) -> None:
    """Removes the partial files of all versions of a file, except for the one to keep."""
    for part in file.parent.glob(f".{file.name}.*.part"):
        if part != keep:
            part.unlink()


def check_size(url: str, size: int | None, sizes: range | None) -> None:
    """Compares the size of a file with those that it may have, if both are known.

    Raises:
        ValueError: it is not one of them.
    """
    if sizes is not None and size is not None and size not in sizes:
        allowed = f"{sizes.start:,}" if len(sizes) == 1 else f"at most {sizes.stop - 1:,}"
        raise ValueError(f"{url} has {size:,} bytes, but must have {allowed}")


def verify(part: Path, remote: Remote) -> None:
    """Compares a received file with what the server has announced about it.

    Raises:
        TransientError: they differ. The partial file is removed, unless only its end is missing.
    """
    n_received = part.stat().st_size
    if remote.size is not None and n_received < remote.size:
        raise TransientError("the connection broke off", n_received)
    if remote.size not in (None, n_received) or not has_digests(part, remote):
        part.unlink()
        raise TransientError("the received file is damaged: its size or its hash is not the one announced")


def has_digests(file: Path, remote: Remote) -> bool:
    """Whether a file has all hashes that the server has announced."""
    return all(digest(file, name) == expected for name, expected in remote.digests.items())

"""One file from a web server: whole or not at all, however the connection behaves.

What has arrived of a file is kept beside it under a temporary name, which belongs to this version of it
(its `ETag`). The next attempt, of this process or a later one, asks only for the rest (`Range`), and
only of the same version (`If-Range`); where the server has another by then, or cannot send parts, it
starts over.

Source: RFC 9110, sections 8.8.3 (ETag), 13.1.5 (If-Range) and 14 (Range); RFC 1864 (Content-MD5).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import requests
from tqdm import tqdm

from .files import digest, sync

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a sign of life from the server
PAUSES = (1, 2, 4, 8, 16)  # seconds before each new attempt, as long as nothing more arrives
CHUNK = 2**16  # bytes; what is lost at most when the program is killed

T = TypeVar("T")


class PassingError(Exception):
    """Something that may be over at the next attempt."""

    def __init__(self, what: str, arrived: int = 0) -> None:
        super().__init__(what)
        self.arrived = arrived  # bytes of the file that are on the disk


class Remote(NamedTuple):
    """What a server says of a file."""

    size: int | None  # bytes, if it says
    etag: str  # the name of this version of the file; empty if it has none that can be relied on
    digests: dict[str, str]  # hashes of the whole file, by their names in hashlib


class Fetcher:
    """A connection, with what to do when it fails.

    Args:
        timeout: seconds without a sign of life after which a connection counts as broken.
        sleep: waits for some seconds before the next attempt.
    """

    def __init__(self, timeout: float = TIMEOUT, sleep: Callable[[float], object] = time.sleep) -> None:
        self.session = requests.Session()
        self.timeout = timeout
        self.sleep = sleep

    def ask(self, url: str) -> Remote:
        """What the server says of a file, before it sends any of it.

        Raises:
            FileNotFoundError: the server has no such file.
            OSError: the server cannot be reached, or refuses.
        """
        return self._persist(url, lambda: self._ask(url))

    def fetch(
        self, url: str, file: Path, size: int | None = None, check: Callable[[Path], object] = lambda _: None
    ) -> None:
        """Fetches a file. What has arrived of it before is not fetched again.

        Args:
            url: its address.
            file: where it goes. No one else may be fetching it to there: see `files.locked`.
            size: the length in bytes that it must have, if that is known.
            check: raises a ValueError if the content of a file that has arrived is wrong.

        Raises:
            FileNotFoundError: the server has no such file.
            OSError: the server cannot be reached, refuses or breaks off again and again, or the disk is full.
            ValueError: the server has something else; nothing of it is kept.
        """
        self._persist(url, lambda: self._fetch(url, file, size, check))

    def _persist(self, url: str, attempt: Callable[[], T]) -> T:
        """Tries until an attempt succeeds, or as many in a row as there are pauses have brought nothing."""
        failures, most = 0, 0
        while True:
            try:
                return attempt()
            except PassingError as error:
                failures = 1 if error.arrived > most else failures + 1
                most = max(most, error.arrived)
                if failures > len(PAUSES):
                    raise OSError(
                        f"{url}: {error}, {failures} times in a row; check the network (HTTPS_PROXY names a proxy), "
                        "then try again: it goes on where this stopped"
                    ) from error
                pause = PAUSES[failures - 1]
                log.warning("%s: %s; trying again in %d s", url, error, pause)
                self.sleep(pause)

    def _ask(self, url: str) -> Remote:
        for method in ("HEAD", "GET"):  # the second for servers that refuse the first; what it sends is not read
            with self._request(method, url) as response:
                if method == "GET" or response.status_code not in (403, 405, 501):
                    check_status(url, response)
                    break
        remote = describe(response)
        return remote._replace(size=remote.size or None)  # some servers say 0 where they send nothing

    def _fetch(self, url: str, file: Path, size: int | None, check: Callable[[Path], object]) -> None:
        remote = self._ask(url)
        check_size(url, remote.size, size)
        part = part_file(url, file, remote)
        remove_parts(file, keep=part)
        arrived = part.stat().st_size if remote.etag and part.exists() else 0
        if arrived == 0 or arrived != remote.size:
            remote, part = self._receive(url, file, remote, arrived)
        verify(part, remote)
        try:
            check_size(url, part.stat().st_size, size)
            check(part)
        except ValueError as error:
            part.unlink()
            raise ValueError(f"{url} is not what it should be: {error}") from error
        sync(part)
        part.replace(file)

    def _receive(self, url: str, file: Path, remote: Remote, arrived: int) -> tuple[Remote, Path]:
        """Appends the rest of a file to what has arrived, or starts over; returns what it is and where."""
        headers = {"Range": f"bytes={arrived}-", "If-Range": remote.etag} if arrived else {}
        part = part_file(url, file, remote)
        with self._request("GET", url, headers) as response:
            if response.status_code == 206 and is_the_rest(response, remote, arrived):
                total = response.headers["Content-Range"].rpartition("/")[2]
                remote = remote._replace(size=remote.size if total == "*" else int(total))
            elif response.status_code in (206, 416):
                part.unlink(missing_ok=True)
                raise PassingError("the server cannot go on where it stopped")
            else:
                check_status(url, response)
                asked, remote = remote, describe(response)  # as it is now, which may not be what it was a moment ago
                if remote.etag == asked.etag and None not in (remote.size, asked.size) and remote.size != asked.size:
                    raise PassingError(f"the server says that it has {asked.size:,} bytes, and then {remote.size:,}")
                remove_parts(file)
                arrived, part = 0, part_file(url, file, remote)
            with (
                part.open("ab" if arrived else "wb") as out,
                tqdm(desc=file.name, initial=arrived, total=remote.size, unit="B", unit_scale=True) as progress,
            ):
                try:
                    for chunk in response.iter_content(CHUNK):
                        write(out, chunk, file)
                        progress.update(len(chunk))
                except requests.RequestException as error:
                    raise PassingError(in_words(error), arrived=out.tell()) from error
        return remote, part

    @contextlib.contextmanager
    def _request(self, method: str, url: str, headers: dict[str, str] | None = None) -> Iterator[requests.Response]:
        headers = {"Accept-Encoding": "identity", **(headers or {})}  # the file itself, not compressed on the way
        try:
            response = self.session.request(
                method, url, headers=headers, stream=True, timeout=self.timeout, allow_redirects=True
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            if isinstance(error, requests.exceptions.SSLError):
                raise OSError(
                    f"{url}: the server's certificate is not one to trust ({error}); behind a proxy that opens "
                    "connections, REQUESTS_CA_BUNDLE must name the file with its certificate"
                ) from error
            raise PassingError(in_words(error)) from error
        except requests.RequestException as error:  # the address is none, or redirects never end
            raise OSError(f"{url}: {error}") from error
        with response:
            yield response


def write(out: IO[bytes], chunk: bytes, file: Path) -> None:
    """Writes part of a file.

    Raises:
        OSError: the disk does not take it.
    """
    try:
        out.write(chunk)
    except OSError as error:
        raise OSError(
            f"{file} cannot be written ({error.strerror or error}); what has arrived is kept: make room, then try again"
        ) from error


def in_words(error: requests.RequestException) -> str:
    """What to say of a failure that may pass."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy gives no connection"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "no connection, or it broke off"


def check_status(url: str, response: requests.Response) -> None:
    """Checks that the server sends a whole file.

    Raises:
        FileNotFoundError: it has no such file.
        OSError: it refuses.
        PassingError: it cannot at the moment.
    """
    status = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in (404, 410):
        raise FileNotFoundError(f"{url}: {status}: it has no such file")
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise PassingError(status)
    if response.status_code != 200:
        raise OSError(f"{url}: {status}")


def describe(response: requests.Response) -> Remote:
    """What the headers of a whole file say of it.

    The hub of Hugging Face answers for large files with the SHA-256 as `X-Linked-ETag`, and then redirects.
    """
    size = response.headers.get("Content-Length", "")
    etag = response.headers.get("ETag", "")
    digests = {}
    with contextlib.suppress(ValueError):  # it is no base64
        md5 = base64.b64decode(response.headers.get("Content-MD5", ""), validate=True)
        if len(md5) == 16:
            digests["md5"] = md5.hex()
    for answer in (*response.history, response):
        if sha256 := re.fullmatch('"?([0-9a-f]{64})"?', answer.headers.get("X-Linked-ETag", "")):
            digests["sha256"] = sha256[1]
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return Remote(None, "", {})  # all this is said of a compressed form
    return Remote(int(size) if size.isdecimal() else None, "" if etag.startswith("W/") else etag, digests)


def is_the_rest(response: requests.Response, remote: Remote, arrived: int) -> bool:
    """Whether a partial answer goes on where we stopped, in the same version of the file."""
    part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return (
        part is not None
        and int(part[1]) == arrived
        and (remote.size is not None if part[2] == "*" else remote.size in (None, int(part[2])))
        and response.headers.get("ETag", remote.etag) == remote.etag
    )


def part_file(url: str, file: Path, remote: Remote) -> Path:
    """Where a version of a file arrives."""
    version = hashlib.sha256(f"{url} {remote.etag}".encode()).hexdigest()[:16]
    return file.with_name(f".{file.name}.{version}.part")


def remove_parts(file: Path, keep: Path | None = None) -> None:
    """Removes what has arrived of a file, but for the version to keep."""
    for part in file.parent.glob(f".{file.name}.*.part"):
        if part != keep:
            part.unlink()


def check_size(url: str, size: int | None, expected: int | None) -> None:
    """Checks a length, where both are known.

    Raises:
        ValueError: it is another.
    """
    if None not in (size, expected) and size != expected:
        raise ValueError(f"{url} has {size:,} bytes, but must have {expected:,}")


def verify(part: Path, remote: Remote) -> None:
    """Compares a file that has arrived with what the server said of it.

    Raises:
        PassingError: it is another. It is removed, unless only its end is missing.
    """
    arrived = part.stat().st_size
    if remote.size is not None and arrived < remote.size:
        raise PassingError("the connection broke off", arrived)
    right = remote.size in (None, arrived) and all(
        digest(part, name) == expected for name, expected in remote.digests.items()
    )
    if not right:
        part.unlink()
        raise PassingError("what arrived is damaged: its length or its hash is not the one announced")

"""One file from a server that misbehaves in many ways: either exactly what the server has arrives, or nothing."""

from __future__ import annotations

import errno
import hashlib
import logging
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from server import Fault, Store, serving

from numpy_gpt2.hub.fetch import CHUNK, PAUSES, Fetcher

CONTENT = random.Random(0).randbytes(1_000_000)
OTHER = random.Random(1).randbytes(1_000_000)
PATH = "/file"


@pytest.fixture
def store() -> Store:
    return Store(files={PATH: CONTENT})


@pytest.fixture
def url(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(store) as address:
        yield address + PATH


@pytest.fixture
def pauses() -> list[float]:
    """The seconds for which the fetcher would have slept."""
    return []


@pytest.fixture
def fetcher(pauses: list[float]) -> Fetcher:
    return Fetcher(timeout=0.2, sleep=pauses.append)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def parts(file: Path) -> list[Path]:
    return sorted(file.parent.glob(".*.part"))


def interrupt(store: Store, url: str, file: Path, after: int) -> None:
    """Interrupts a download with Ctrl-C after this many bytes, which leaves a partial file."""

    def stop(pause: float) -> None:
        raise KeyboardInterrupt

    store.faults[PATH] = [*([Fault()] if store.refuse_head else []), Fault(cut=after)]
    with pytest.raises(KeyboardInterrupt):
        Fetcher(timeout=0.2, sleep=stop).fetch(url, file)
    assert not file.exists()
    store.requests.clear()


def test_a_file_arrives_complete(store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
    fetcher.fetch(url, file)
    assert file.read_bytes() == CONTENT
    assert [*file.parent.iterdir()] == [file]


def test_the_server_announces_size_and_hash(fetcher: Fetcher, url: str) -> None:
    remote = fetcher.ask(url)
    assert remote.size == len(CONTENT)
    assert remote.digests == {"md5": hashlib.md5(CONTENT).hexdigest()}


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[:CHUNK], CONTENT[: CHUNK + 1]], ids=len)
def test_files_of_any_size(store: Store, fetcher: Fetcher, url: str, file: Path, content: bytes) -> None:
    store.files[PATH] = content
    fetcher.fetch(url, file)
    assert file.read_bytes() == content


class TestInterruption:
    def test_the_next_download_requests_only_the_rest(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        interrupt(store, url, file, after=400_000)
        arrived = parts(file)[0].stat().st_size
        assert 400_000 - CHUNK <= arrived <= 400_000
        fetcher.fetch(url, file)
        assert [(request.range, request.status) for request in store.of(PATH)] == [(f"bytes={arrived}-", 206)]
        assert file.read_bytes() == CONTENT
        assert not parts(file)

    def test_it_starts_over_if_the_server_supports_no_ranges(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        interrupt(store, url, file, after=400_000)
        store.ranges = False
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [200]
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize("content", [OTHER, OTHER[:300_000], OTHER * 2], ids=["same length", "shorter", "longer"])
    def test_it_starts_over_if_the_file_has_changed(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, content: bytes
    ) -> None:
        interrupt(store, url, file, after=400_000)
        store.files[PATH] = content
        fetcher.fetch(url, file)
        assert [(request.range, request.status) for request in store.of(PATH)] == [(None, 200)]
        assert file.read_bytes() == content
        assert not parts(file)

    def test_it_starts_over_if_the_file_changes_between_the_requests(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        """The server is asked about the file first, then for the rest of it: `If-Range`."""
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(change=OTHER)]
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [200]
        assert file.read_bytes() == OTHER

    @pytest.mark.parametrize(
        "fault", [Fault(change=OTHER), Fault(change=OTHER * 2), Fault(change=OTHER * 2, nameless=True)], ids=range(3)
    )
    def test_it_also_starts_over_if_the_server_ignores_if_range(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, fault: Fault
    ) -> None:
        store.md5 = False
        interrupt(store, url, file, after=400_000)
        store.if_range = False
        store.faults[PATH] = [fault]
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206, 200]
        assert file.read_bytes() == fault.change

    def test_partial_files_of_other_versions_are_removed(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        interrupt(store, url, file, after=400_000)
        (file.parent / ".file.0123456789abcdef.part").write_bytes(OTHER)
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206]
        assert [*file.parent.iterdir()] == [file]

    def test_a_file_that_changes_back_and_forth(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(change=OTHER, cut=500_000), Fault(change=CONTENT, cut=600_000), Fault(change=OTHER)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == OTHER

    def test_it_starts_over_without_an_etag(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.etags = False
        interrupt(store, url, file, after=400_000)
        fetcher.fetch(url, file)
        assert [(request.range, request.status) for request in store.of(PATH)] == [(None, 200)]
        assert file.read_bytes() == CONTENT
        assert not parts(file)

    def test_a_weak_etag_counts_as_none(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.etags, store.md5, store.headers = False, False, {"ETag": 'W/"1"'}
        interrupt(store, url, file, after=400_000)
        store.files[PATH] = OTHER
        fetcher.fetch(url, file)
        assert file.read_bytes() == OTHER

    def test_a_complete_partial_file_is_not_requested_again(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        """It is left by a process that is killed between the last byte and the renaming."""
        interrupt(store, url, file, after=400_000)
        parts(file)[0].write_bytes(CONTENT)
        fetcher.fetch(url, file)
        assert store.of(PATH) == []
        assert file.read_bytes() == CONTENT

    def test_a_partial_file_that_is_too_long(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        interrupt(store, url, file, after=400_000)
        parts(file)[0].write_bytes(CONTENT + b"more")
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [416, 200]
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize("length", ["", "0"], ids=["none", "0"])
    def test_a_server_that_gives_the_size_only_with_the_content(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, length: str
    ) -> None:
        store.head_length = length
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(cut=100_000)]
        fetcher.fetch(url, file, sizes=range(len(CONTENT), len(CONTENT) + 1))
        assert [request.status for request in store.of(PATH)] == [206, 206]
        assert file.read_bytes() == CONTENT

    def test_a_range_is_not_accepted_as_the_rest_if_the_size_is_unknown(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.head_length = ""
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(total="*")]
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206, 200]
        assert file.read_bytes() == CONTENT

    def test_a_damaged_partial_file_is_noticed_by_its_hash(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        interrupt(store, url, file, after=400_000)
        part = parts(file)[0]
        part.write_bytes(bytes(part.stat().st_size))
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206, 200]
        assert file.read_bytes() == CONTENT


class TestMisbehaviour:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(cut=0),
            Fault(cut=1),
            Fault(cut=500_000),
            Fault(cut=999_999),
            Fault(claim=1),
            Fault(claim=-1),
            Fault(flip=0),
            Fault(flip=700_000),
            Fault(stall=0),
            Fault(stall=500_000),
            Fault(status=408),
            Fault(status=416),
            Fault(status=429),
            Fault(status=500),
            Fault(status=503),
            Fault(status=206),
        ],
        ids=lambda fault: ",".join(f"{k}={v}" for k, v in vars(fault).items() if v not in (None, 200) or k == "cut"),
    )
    @pytest.mark.parametrize("times", [1, len(PAUSES)])
    def test_transient_failures_are_retried(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float], fault: Fault, times: int
    ) -> None:
        store.faults[PATH] = [fault] * times
        if fault.status == 416:
            interrupted = Fault(cut=100_000)
            store.faults[PATH] = [each for _ in range(times) for each in (interrupted, fault)][: len(PAUSES)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT
        assert pauses[0] == PAUSES[0]
        assert not parts(file)

    def test_pauses_grow_without_progress(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        store.faults[PATH] = [Fault(status=503)] * 9
        with pytest.raises(OSError, match=rf"{url}: the server answers 503 .*, 6 times in a row; check the network"):
            fetcher.fetch(url, file)
        assert pauses == [*PAUSES]
        assert len(store.of(PATH)) == 1 + len(PAUSES)

    def test_pauses_start_again_after_progress(self, store: Store, url: str, file: Path, pauses: list[float]) -> None:
        """Broken connections are no reason to give up, as long as more arrives each time."""
        store.faults[PATH] = [each for _ in range(8) for each in (Fault(status=503), Fault(cut=100_000))]
        Fetcher(timeout=60, sleep=pauses.append).fetch(url, file)
        assert file.read_bytes() == CONTENT
        assert max(pauses) <= 4  # 2, unless closing the connection loses bytes in transit

    def test_without_pauses_there_are_no_retries(self, store: Store, url: str, file: Path) -> None:
        store.faults[PATH] = [Fault(status=503)]
        with pytest.raises(OSError, match="the server answers 503 .*, 1 times in a row"):
            Fetcher(pauses=()).fetch(url, file)
        assert len(store.of(PATH)) == 1

    def test_a_connection_that_always_breaks_at_the_same_byte(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        store.ranges = False
        store.faults[PATH] = [Fault(cut=300_000)] * 99
        with pytest.raises(OSError, match="the download will be resumed"):
            fetcher.fetch(url, file)
        assert len(pauses) < 10
        assert not file.exists()

    def test_a_file_that_is_damaged_every_time_is_refused(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.faults[PATH] = [Fault(flip=7)] * 99
        with pytest.raises(OSError, match=rf"{url}: the received file is damaged: its size or its hash .*, 6 times"):
            fetcher.fetch(url, file)
        assert [*file.parent.iterdir()] == []

    @pytest.mark.parametrize("etags", [True, False])
    def test_a_size_that_is_too_small_is_noticed_without_a_hash(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, etags: bool
    ) -> None:
        store.md5, store.etags = False, etags
        store.faults[PATH] = [Fault(claim=-1)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT
        assert len(store.of(PATH)) == 2

    @pytest.mark.parametrize("offset", [-1, 1])
    def test_a_range_with_another_offset_than_requested(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, offset: int
    ) -> None:
        store.md5 = False
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(offset=offset)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize("status", [404, 410])
    def test_a_missing_file_is_reported_at_once(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float], status: int
    ) -> None:
        store.faults[PATH] = [Fault(status=status)]
        with pytest.raises(FileNotFoundError, match=rf"{url}: the server answers {status} .*: it has no such file"):
            fetcher.fetch(url, file)
        with pytest.raises(FileNotFoundError, match="404"):
            fetcher.ask(url + "2")
        assert pauses == []

    @pytest.mark.parametrize("status", [400, 401, 403, 451])
    def test_a_refusal_is_reported_at_once(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float], status: int
    ) -> None:
        store.faults[PATH] = [Fault(status=status)]
        with pytest.raises(OSError, match=rf"{url}: the server answers {status}"):
            fetcher.fetch(url, file)
        assert pauses == []

    def test_a_server_that_sends_too_little_at_a_time(
        self, store: Store, url: str, file: Path, pauses: list[float]
    ) -> None:
        """With a clock that goes on by more than a minute with each piece of at most 64 kB."""
        store.files[PATH], store.etags = CONTENT[:1000], False
        fetcher = Fetcher(sleep=pauses.append, clock=iter(range(0, 10**6, 61)).__next__)
        with pytest.raises(OSError, match=r"the server sends less than 1 kB a second, 6 times in a row"):
            fetcher.fetch(url, file)
        assert pauses == [*PAUSES]  # what arrived is no progress that would earn more attempts
        assert not file.exists()

    def test_a_server_that_sends_enough(self, url: str, file: Path, pauses: list[float]) -> None:
        Fetcher(sleep=pauses.append, clock=iter(range(10**6)).__next__).fetch(url, file)
        assert pauses == []
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize(
        "location",
        ["http://[", "http://a:b/", "ftp://127.0.0.1/", "http://\x7f/", "http://\xff/", "http://a b/", ""],
    )
    def test_a_redirect_to_nowhere(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, location: str, pauses: list[float]
    ) -> None:
        store.refusal = lambda path, token: (302, {"Location": location}) if path == PATH else None
        with pytest.raises(OSError, match=f"^{url}: the server redirects to .*, which is not an address"):
            fetcher.fetch(url, file)
        assert pauses == []

    def test_the_body_of_a_redirect_is_not_read(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.redirect = store.endless_redirect = True
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_relative_to_the_address(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, status: int
    ) -> None:
        store.refusal = lambda path, token: (status, {"Location": "../folder/a b#part"}) if path == PATH else None
        store.files["/folder/a%20b"] = OTHER
        fetcher.fetch(url, file)
        assert file.read_bytes() == OTHER

    def test_no_server_listens(self, file: Path, fetcher: Fetcher, pauses: list[float]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}/file: no connection, or a broken one, 6 times in a r"):
            fetcher.fetch(f"http://127.0.0.1:{port}/file", file)
        assert pauses == [*PAUSES]

    @pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1/file", "http://", "http://a:b/", "file:///etc"])
    def test_invalid_addresses(
        self, address: str, file: Path, fetcher: Fetcher, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_PROXY", "*")
        with pytest.raises(OSError, match=address):
            fetcher.fetch(address, file)
        assert pauses == []

    def test_a_proxy_that_does_not_answer(
        self, file: Path, fetcher: Fetcher, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(OSError, match=r"no connection to the proxy.*HTTPS_PROXY names a proxy"):
            fetcher.fetch("http://models.invalid/file", file)

    def test_a_certificate_that_cannot_be_trusted(
        self, file: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetcher = Fetcher(sleep=pauses.append)

        def refuse(*args: object, **kwargs: object) -> None:
            raise requests.exceptions.SSLError("self-signed certificate")

        monkeypatch.setattr(fetcher.session, "request", refuse)
        with pytest.raises(OSError, match=r"certificate cannot be trusted \(self-signed.*REQUESTS_CA_BUNDLE"):
            fetcher.fetch("https://127.0.0.1/file", file)
        assert pauses == []


class TestOtherServers:
    @pytest.mark.parametrize("status", [403, 405, 501])
    def test_a_server_that_does_not_allow_head(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, status: int
    ) -> None:
        store.refuse_head = status
        interrupt(store, url, file, after=400_000)
        assert fetcher.ask(url).size == len(CONTENT)
        fetcher.fetch(url, file)
        assert store.of(PATH)[-1].status == 206
        assert file.read_bytes() == CONTENT

    def test_a_server_that_gives_no_size(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.lengths = False
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    def test_without_a_size_the_hash_reveals_an_incomplete_file(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        store.lengths = False
        store.faults[PATH] = [Fault(cut=300_000)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT
        assert len(pauses) == 1

    def test_a_server_that_redirects_as_the_hub_does(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.redirect, store.md5 = True, False
        interrupt(store, url, file, after=400_000)
        fetcher.fetch(url, file)
        assert [request.status for request in store.of("/elsewhere" + PATH)] == [206]
        assert file.read_bytes() == CONTENT

    def test_the_hash_in_the_redirect_is_compared(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.redirect, store.md5 = True, False
        assert fetcher.ask(url).digests == {"sha256": hashlib.sha256(CONTENT).hexdigest()}
        store.faults[PATH] = [Fault(flip=500_000)]
        fetcher.fetch(url, file)
        assert len(store.of("/elsewhere" + PATH)) == 2
        assert file.read_bytes() == CONTENT

    def test_redirects_without_end(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        store.redirect_loop = True
        with pytest.raises(OSError, match=f"^{url}: the server redirects more than 20 times$"):
            fetcher.fetch(url, file)
        assert pauses == []

    def test_the_size_and_hash_of_a_compressed_form_are_ignored(self, store: Store, fetcher: Fetcher, url: str) -> None:
        store.headers = {"Content-Encoding": "gzip"}
        assert fetcher.ask(url) == (None, "", {})

    @pytest.mark.parametrize("md5", ["", "nonsense", "====", "YQ==", "é"])
    def test_an_invalid_hash_is_ignored(self, store: Store, fetcher: Fetcher, url: str, file: Path, md5: str) -> None:
        store.md5, store.headers = False, {"Content-MD5": md5}
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    def test_the_hash_of_a_range_is_not_taken_for_that_of_the_file(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        """A response with a range may have the hash of that range."""
        store.md5 = False
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(part_md5="AAAAAAAAAAAAAAAAAAAAAA==")]
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206]
        assert file.read_bytes() == CONTENT


class TestContent:
    def test_a_file_of_the_wrong_size_is_not_requested(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        with pytest.raises(ValueError, match=rf"{url} has 1,000,000 bytes, but must have 999,999"):
            fetcher.fetch(url, file, sizes=range(999_999, 1_000_000))
        assert store.of(PATH) == []

    def test_a_file_of_the_wrong_size_is_refused_if_the_server_gives_no_size(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.lengths = False
        with pytest.raises(ValueError, match="has 1,000,000 bytes, but must have 999,999"):
            fetcher.fetch(url, file, sizes=range(999_999, 1_000_000))
        assert [*file.parent.iterdir()] == []

    def test_a_file_that_is_too_large_is_not_requested(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        fetcher.fetch(url, file, sizes=range(1_000_001))
        file.unlink()
        store.requests.clear()
        with pytest.raises(ValueError, match=rf"{url} has 1,000,000 bytes, but must have at most 999,999"):
            fetcher.fetch(url, file, sizes=range(1_000_000))
        assert store.of(PATH) == []

    def test_a_file_without_end_is_left_at_its_limit(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.lengths = False
        store.faults[PATH] = [Fault(endless=True)]
        with pytest.raises(ValueError, match=rf"{url} is not what it should be: .* but must have at most 1,500,000"):
            fetcher.fetch(url, file, sizes=range(1_500_001))
        assert [*file.parent.iterdir()] == []

    @pytest.mark.parametrize("content", [CONTENT, OTHER])
    def test_a_file_that_is_there_and_has_the_right_hash_is_not_requested(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, content: bytes
    ) -> None:
        file.write_bytes(content)
        fetcher.fetch(url, file)
        assert len(store.of(PATH)) == (content != CONTENT)
        assert file.read_bytes() == CONTENT

    def test_without_a_hash_a_file_that_is_there_is_requested(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.md5 = False
        file.write_bytes(OTHER)
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    def test_a_file_with_the_wrong_content_is_not_kept(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        def check(part: Path) -> None:
            assert part.read_bytes() == CONTENT
            raise ValueError("it is a login page")

        with pytest.raises(ValueError, match=f"{url} is not what it should be: it is a login page"):
            fetcher.fetch(url, file, check=check)
        assert [*file.parent.iterdir()] == []
        assert pauses == []

    @pytest.mark.parametrize(("room", "size"), [(5_000, 8_000), (500_000, 1_000_000)])  # a buffer could hold 8,000
    def test_on_a_full_disk_the_partial_file_is_kept(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, room: int, size: int
    ) -> None:
        store.files[PATH] = CONTENT[:size]
        limit = pytest.importorskip("resource")
        old = limit.getrlimit(limit.RLIMIT_FSIZE)
        signal = pytest.importorskip("signal")
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit.setrlimit(limit.RLIMIT_FSIZE, (room, old[1]))
        try:
            with pytest.raises(OSError, match=rf"{file} cannot be written \(.*\); make room, then try again"):
                fetcher.fetch(url, file)
        finally:
            limit.setrlimit(limit.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)
        store.requests.clear()
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206]
        assert file.read_bytes() == CONTENT[:size]

    def test_a_file_gets_its_name_only_when_all_of_it_is_on_the_disk(
        self, fetcher: Fetcher, url: str, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            fetcher.fetch(url, file)
        assert not file.exists()

    def test_a_progress_bar_is_shown(
        self, fetcher: Fetcher, url: str, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fetcher.fetch(url, file)
        shown = capsys.readouterr().err
        assert "file: 100%" in shown
        assert "1.00M/1.00M" in shown

    def test_each_retry_is_announced(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.faults[PATH] = [Fault(status=503)]
        with caplog.at_level(logging.WARNING):
            fetcher.fetch(url, file)
        assert f"{url}: the server answers 503 Service Unavailable; trying again in 1 s" in caplog.text

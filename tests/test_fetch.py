"""One file from a server that misbehaves in every way: what arrives is what the server has, or nothing."""

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

from numpy_gpt2 import fetch
from numpy_gpt2.fetch import PAUSES, Fetcher

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
    """The seconds that the fetcher would have slept."""
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
    """Leaves part of the file behind, as a user does who presses Ctrl-C."""

    def stop(pause: float) -> None:
        raise KeyboardInterrupt

    store.faults[PATH] = [*([Fault()] if store.refuse_head else []), Fault(cut=after)]
    with pytest.raises(KeyboardInterrupt):
        Fetcher(timeout=0.2, sleep=stop).fetch(url, file)
    assert not file.exists()
    store.requests.clear()


def test_a_file_arrives_whole(store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
    fetcher.fetch(url, file)
    assert file.read_bytes() == CONTENT
    assert [*file.parent.iterdir()] == [file]


def test_what_the_server_says_before_it_sends(fetcher: Fetcher, url: str) -> None:
    remote = fetcher.ask(url)
    assert remote.size == len(CONTENT)
    assert remote.digests == {"md5": hashlib.md5(CONTENT).hexdigest()}


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[: fetch.CHUNK], CONTENT[: fetch.CHUNK + 1]], ids=len)
def test_files_of_odd_lengths(store: Store, fetcher: Fetcher, url: str, file: Path, content: bytes) -> None:
    store.files[PATH] = content
    fetcher.fetch(url, file)
    assert file.read_bytes() == content


class TestInterruption:
    def test_the_next_process_asks_for_the_rest_only(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        interrupt(store, url, file, after=400_000)
        arrived = parts(file)[0].stat().st_size
        assert 400_000 - fetch.CHUNK <= arrived <= 400_000
        fetcher.fetch(url, file)
        assert [(request.range, request.status) for request in store.of(PATH)] == [(f"bytes={arrived}-", 206)]
        assert file.read_bytes() == CONTENT
        assert not parts(file)

    def test_it_starts_over_where_the_server_knows_no_parts(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        interrupt(store, url, file, after=400_000)
        store.ranges = False
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [200]
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize("content", [OTHER, OTHER[:300_000], OTHER * 2], ids=["same length", "shorter", "longer"])
    def test_it_starts_over_when_the_file_has_changed(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, content: bytes
    ) -> None:
        interrupt(store, url, file, after=400_000)
        store.files[PATH] = content
        fetcher.fetch(url, file)
        assert [(request.range, request.status) for request in store.of(PATH)] == [(None, 200)]
        assert file.read_bytes() == content
        assert not parts(file)

    def test_it_starts_over_when_the_file_changes_just_now(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        """Between the question what there is, and the request for the rest of it: `If-Range`."""
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(change=OTHER)]
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [200]
        assert file.read_bytes() == OTHER

    @pytest.mark.parametrize(
        "fault", [Fault(change=OTHER), Fault(change=OTHER * 2), Fault(change=OTHER * 2, nameless=True)], ids=range(3)
    )
    def test_also_where_the_server_passes_over_if_range(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, fault: Fault
    ) -> None:
        store.md5 = False
        interrupt(store, url, file, after=400_000)
        store.if_range = False
        store.faults[PATH] = [fault]
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206, 200]
        assert file.read_bytes() == fault.change

    def test_parts_of_other_versions_are_removed(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
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

    def test_without_a_name_for_the_version_it_starts_over(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.etags = False
        interrupt(store, url, file, after=400_000)
        fetcher.fetch(url, file)
        assert [(request.range, request.status) for request in store.of(PATH)] == [(None, 200)]
        assert file.read_bytes() == CONTENT
        assert not parts(file)

    def test_a_weak_name_for_the_version_is_none(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.etags, store.md5, store.headers = False, False, {"ETag": 'W/"1"'}
        interrupt(store, url, file, after=400_000)
        store.files[PATH] = OTHER
        fetcher.fetch(url, file)
        assert file.read_bytes() == OTHER

    def test_what_has_arrived_whole_is_not_asked_for_again(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        """A process that was killed between the last byte and the renaming."""
        interrupt(store, url, file, after=400_000)
        parts(file)[0].write_bytes(CONTENT)
        fetcher.fetch(url, file)
        assert store.of(PATH) == []
        assert file.read_bytes() == CONTENT

    def test_more_than_there_is_to_come(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        interrupt(store, url, file, after=400_000)
        parts(file)[0].write_bytes(CONTENT + b"more")
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [416, 200]
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize("length", ["", "0"], ids=["none", "0"])
    def test_a_server_that_tells_the_length_only_with_the_content(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, length: str
    ) -> None:
        store.head_length = length
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(cut=100_000)]
        fetcher.fetch(url, file, size=len(CONTENT))
        assert [request.status for request in store.of(PATH)] == [206, 206]
        assert file.read_bytes() == CONTENT

    def test_a_part_is_not_taken_for_the_rest_where_no_length_is_told(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.head_length = ""
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(total="*")]
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206, 200]
        assert file.read_bytes() == CONTENT

    def test_a_spoilt_part_is_noticed_by_its_hash(
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
    def test_what_passes_is_waited_out(
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

    def test_pauses_grow_while_nothing_arrives(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        store.faults[PATH] = [Fault(status=503)] * 9
        with pytest.raises(OSError, match=rf"{url}: the server answers 503 .*, 6 times in a row; check the network"):
            fetcher.fetch(url, file)
        assert pauses == [*PAUSES]
        assert len(store.of(PATH)) == 1 + len(PAUSES)

    def test_they_start_again_when_something_has_arrived(
        self, store: Store, url: str, file: Path, pauses: list[float]
    ) -> None:
        """A line that breaks often is no reason to give up, as long as it goes on."""
        store.faults[PATH] = [each for _ in range(8) for each in (Fault(status=503), Fault(cut=100_000))]
        Fetcher(timeout=60, sleep=pauses.append).fetch(url, file)
        assert file.read_bytes() == CONTENT
        assert max(pauses) <= 4  # 2, unless what was on its way is lost when the server closes the connection

    def test_a_server_that_always_breaks_off_at_the_same_byte(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        store.ranges = False
        store.faults[PATH] = [Fault(cut=300_000)] * 99
        with pytest.raises(OSError, match="it goes on where this stopped"):
            fetcher.fetch(url, file)
        assert len(pauses) < 10
        assert not file.exists()

    def test_what_is_damaged_again_and_again_is_refused(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.faults[PATH] = [Fault(flip=7)] * 99
        with pytest.raises(OSError, match=rf"{url}: what arrived is damaged: its length or its hash .*, 6 times"):
            fetcher.fetch(url, file)
        assert [*file.parent.iterdir()] == []

    @pytest.mark.parametrize("etags", [True, False])
    def test_a_length_that_is_too_short_is_noticed_without_a_hash(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, etags: bool
    ) -> None:
        store.md5, store.etags = False, etags
        store.faults[PATH] = [Fault(claim=-1)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT
        assert len(store.of(PATH)) == 2

    @pytest.mark.parametrize("offset", [-1, 1])
    def test_another_part_than_was_asked_for(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, offset: int
    ) -> None:
        store.md5 = False
        interrupt(store, url, file, after=400_000)
        store.faults[PATH] = [Fault(offset=offset)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    @pytest.mark.parametrize("status", [404, 410])
    def test_no_such_file_is_said_at_once(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float], status: int
    ) -> None:
        store.faults[PATH] = [Fault(status=status)]
        with pytest.raises(FileNotFoundError, match=rf"{url}: the server answers {status} .*: it has no such file"):
            fetcher.fetch(url, file)
        with pytest.raises(FileNotFoundError, match="404"):
            fetcher.ask(url + "2")
        assert pauses == []

    @pytest.mark.parametrize("status", [400, 401, 403, 451])
    def test_a_refusal_is_said_at_once(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float], status: int
    ) -> None:
        store.faults[PATH] = [Fault(status=status)]
        with pytest.raises(OSError, match=rf"{url}: the server answers {status}"):
            fetcher.fetch(url, file)
        assert pauses == []

    def test_nobody_listens(self, file: Path, fetcher: Fetcher, pauses: list[float]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}/file: no connection, or it broke off, 6 times in a r"):
            fetcher.fetch(f"http://127.0.0.1:{port}/file", file)
        assert pauses == [*PAUSES]

    @pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1/file", "http://", "http://a:b/", "file:///etc"])
    def test_addresses_that_are_none(
        self, address: str, file: Path, fetcher: Fetcher, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_PROXY", "*")
        with pytest.raises(OSError, match=address):
            fetcher.fetch(address, file)
        assert pauses == []

    def test_a_proxy_that_is_not_there(
        self, file: Path, fetcher: Fetcher, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(OSError, match=r"the proxy gives no connection.*HTTPS_PROXY names a proxy"):
            fetcher.fetch("http://models.invalid/file", file)

    def test_a_certificate_that_cannot_be_trusted(
        self, file: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetcher = Fetcher(sleep=pauses.append)

        def refuse(*args: object, **kwargs: object) -> None:
            raise requests.exceptions.SSLError("self-signed certificate")

        monkeypatch.setattr(fetcher.session, "request", refuse)
        with pytest.raises(OSError, match=r"not one to trust \(self-signed.*REQUESTS_CA_BUNDLE"):
            fetcher.fetch("https://127.0.0.1/file", file)
        assert pauses == []


class TestOtherServers:
    @pytest.mark.parametrize("status", [403, 405, 501])
    def test_one_that_answers_get_only(self, store: Store, fetcher: Fetcher, url: str, file: Path, status: int) -> None:
        store.refuse_head = status
        interrupt(store, url, file, after=400_000)
        assert fetcher.ask(url).size == len(CONTENT)
        fetcher.fetch(url, file)
        assert store.of(PATH)[-1].status == 206
        assert file.read_bytes() == CONTENT

    def test_one_that_does_not_say_how_long_a_file_is(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        store.lengths = False
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    def test_then_the_hash_tells_a_part_from_the_whole(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        store.lengths = False
        store.faults[PATH] = [Fault(cut=300_000)]
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT
        assert len(pauses) == 1

    def test_one_that_redirects_as_the_hub_does(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.redirect, store.md5 = True, False
        interrupt(store, url, file, after=400_000)
        fetcher.fetch(url, file)
        assert [request.status for request in store.of("/elsewhere" + PATH)] == [206]
        assert file.read_bytes() == CONTENT

    def test_the_hubs_hash_is_compared(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.redirect, store.md5 = True, False
        assert fetcher.ask(url).digests == {"sha256": hashlib.sha256(CONTENT).hexdigest()}
        store.faults[PATH] = [Fault(flip=500_000)]
        fetcher.fetch(url, file)
        assert len(store.of("/elsewhere" + PATH)) == 2
        assert file.read_bytes() == CONTENT

    def test_redirects_without_end(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "server.Handler.do_HEAD", lambda self: self.answer(302, {"Location": self.path, "Content-Length": "0"})
        )
        with pytest.raises(OSError, match="redirects"):
            fetcher.fetch(url, file)
        assert pauses == []

    def test_lengths_and_hashes_of_a_compressed_form_are_not_the_files(
        self, store: Store, fetcher: Fetcher, url: str
    ) -> None:
        store.headers = {"Content-Encoding": "gzip"}
        assert fetcher.ask(url) == (None, "", {})

    @pytest.mark.parametrize("md5", ["", "nonsense", "====", "YQ==", "é"])
    def test_nonsense_for_a_hash_is_passed_over(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, md5: str
    ) -> None:
        store.md5, store.headers = False, {"Content-MD5": md5}
        fetcher.fetch(url, file)
        assert file.read_bytes() == CONTENT

    def test_the_hash_of_a_part_is_not_the_files(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer with part of a file may carry the hash of that part."""
        store.md5 = False
        interrupt(store, url, file, after=400_000)
        original = fetch.is_the_rest

        def with_a_hash(response: requests.Response, *args: object) -> bool:
            response.headers["Content-MD5"] = "AAAAAAAAAAAAAAAAAAAAAA=="
            return original(response, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(fetch, "is_the_rest", with_a_hash)
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206]
        assert file.read_bytes() == CONTENT


class TestContent:
    def test_another_length_than_it_must_have_is_refused_before_it_is_sent(
        self, store: Store, fetcher: Fetcher, url: str, file: Path
    ) -> None:
        with pytest.raises(ValueError, match=rf"{url} has 1,000,000 bytes, but must have 999,999"):
            fetcher.fetch(url, file, size=999_999)
        assert store.of(PATH) == []

    def test_also_where_the_server_does_not_say_it(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        store.lengths = False
        with pytest.raises(ValueError, match="has 1,000,000 bytes, but must have 999,999"):
            fetcher.fetch(url, file, size=999_999)
        assert [*file.parent.iterdir()] == []

    def test_what_is_not_what_it_should_be_is_not_kept(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, pauses: list[float]
    ) -> None:
        def check(part: Path) -> None:
            assert part.read_bytes() == CONTENT
            raise ValueError("it is a login page")

        with pytest.raises(ValueError, match=f"{url} is not what it should be: it is a login page"):
            fetcher.fetch(url, file, check=check)
        assert [*file.parent.iterdir()] == []
        assert pauses == []

    def test_a_full_disk_keeps_what_has_arrived(self, store: Store, fetcher: Fetcher, url: str, file: Path) -> None:
        limit = pytest.importorskip("resource")
        old = limit.getrlimit(limit.RLIMIT_FSIZE)
        signal = pytest.importorskip("signal")
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit.setrlimit(limit.RLIMIT_FSIZE, (500_000, old[1]))
        try:
            with pytest.raises(OSError, match=rf"{file} cannot be written \(.*\); what has arrived is kept: make room"):
                fetcher.fetch(url, file)
        finally:
            limit.setrlimit(limit.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)
        store.requests.clear()
        fetcher.fetch(url, file)
        assert [request.status for request in store.of(PATH)] == [206]
        assert file.read_bytes() == CONTENT

    def test_a_file_gets_its_name_only_when_the_disk_has_all_of_it(
        self, fetcher: Fetcher, url: str, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            fetcher.fetch(url, file)
        assert not file.exists()

    def test_a_bar_shows_how_far_it_is(
        self, fetcher: Fetcher, url: str, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fetcher.fetch(url, file)
        shown = capsys.readouterr().err
        assert "file: 100%" in shown
        assert "1.00M/1.00M" in shown

    def test_each_new_attempt_is_announced(
        self, store: Store, fetcher: Fetcher, url: str, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.faults[PATH] = [Fault(status=503)]
        with caplog.at_level(logging.WARNING):
            fetcher.fetch(url, file)
        assert f"{url}: the server answers 503 Service Unavailable; trying again in 1 s" in caplog.text

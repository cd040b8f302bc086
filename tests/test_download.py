"""Downloads: whole, with the right hash, and never waiting for long. The network here is this machine's loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imgcls import download as module
from imgcls.download import download, open_url
from imgcls.errors import WriteError

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between the test and its own server."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(urllib.request, "_opener", None)


@contextmanager
def answering(answer: Callable[[socket.socket], Any]) -> Iterator[str]:
    """Serve one connection with `answer`; yields the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                answer(connection)
                done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth"
        done.set()
        thread.join()


def response(content: bytes, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content) if length is None else length}\r\n\r\n"
    return head.encode() + content


def test_a_file_arrives_whole_in_folders_that_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "weights.pth"
    with answering(lambda connection: connection.sendall(response(CONTENT))) as url:
        download(url, target, SHA256[:8])
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["weights.pth"]


def test_other_content_than_the_name_promises_is_not_kept(tmp_path: Path) -> None:
    with (
        answering(lambda connection: connection.sendall(response(CONTENT))) as url,
        pytest.raises(ConnectionError, match=f"has SHA-256 {SHA256}, not 00000000"),
    ):
        download(url, tmp_path / "weights.pth", "00000000")
    assert os.listdir(tmp_path) == []


def test_a_connection_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def half(connection: socket.socket) -> None:
        connection.sendall(response(CONTENT[:1000], len(CONTENT)))
        connection.shutdown(socket.SHUT_RDWR)

    with answering(half) as url, pytest.raises(ConnectionError):
        download(url, tmp_path / "weights.pth", SHA256[:8])
    assert os.listdir(tmp_path) == []


def test_silence_in_the_middle_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    with (
        answering(lambda connection: connection.sendall(response(CONTENT[:1000], len(CONTENT)))) as url,
        pytest.raises(ConnectionError, match="broke off: timed out"),
    ):
        download(url, tmp_path / "weights.pth", SHA256[:8])
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_the_disks_fault_not_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        answering(lambda connection: connection.sendall(response(CONTENT))) as url,
        pytest.raises(WriteError, match="no space left"),
    ):
        download(url, tmp_path / "weights.pth", SHA256[:8])
    assert os.listdir(tmp_path) == []


def test_a_server_that_never_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    with answering(lambda connection: None) as url, pytest.raises(TimeoutError):
        open_url(url)


def test_a_name_server_that_never_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket's own time-out does not cover the name look-up, which can take minutes."""
    released = threading.Event()

    def hang(*arguments: Any, **options: Any) -> Any:
        released.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        open_url("http://weights.example/resnet18.pth")
    assert time.monotonic() - start < 15
    released.set()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b""])
def test_an_unfit_answer_is_an_oserror_at_once(answer: bytes) -> None:
    def say(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    with answering(say) as url, pytest.raises(OSError):
        open_url(url)

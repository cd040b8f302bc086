"""The one way to the network: every connection has a time limit, name look-up included.

Knows nothing of weights or data sets.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from imgcls.files import replacing

TIMEOUT = 10.0  # seconds to connect, and the longest silence while data flows


def open_url(url: str) -> HTTPResponse:
    """Open `url`; a stalled read raises TimeoutError after `TIMEOUT`.

    Raises:
        OSError: no connection, no such name, an HTTP error, or nothing within `TIMEOUT`.
    """
    answers: queue.Queue[HTTPResponse | OSError] = queue.Queue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=TIMEOUT))
        except HTTPError as error:
            error.close()
            answers.put(error)
        except OSError as error:
            answers.put(error)
        except HTTPException as error:  # what answers there does not speak HTTP
            answers.put(ConnectionError(f"no sensible answer from {url}: {error!r}"))

    # A thread, because a name server that does not answer is not covered by the socket's own time-out.
    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except queue.Empty:
        raise TimeoutError(f"no answer within {TIMEOUT:g} s") from None
    if isinstance(answer, HTTPError):
        raise ConnectionError(f"{url}: HTTP {answer.code}")
    if isinstance(answer, URLError):
        raise ConnectionError(f"no connection to {urlsplit(url).hostname}: {answer.reason}")
    if isinstance(answer, OSError):
        raise answer
    return answer


def download(url: str, target: Path, hash_prefix: str) -> None:
    """Fetch `url` into `target`, whole or not at all.

    Args:
        url: where the file is.
        target: where it goes; missing folders are made.
        hash_prefix: first hex digits that the SHA-256 of the content must have.

    Raises:
        OSError: no connection, a stall, or content with another hash.
        WriteError: the target's folder refuses the file.
    """
    with open_url(url) as response:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(target) as temporary, temporary.open("wb") as file:
                file.writelines(_received(response, url, hash_prefix))
        except _NetworkError as error:
            raise ConnectionError(str(error)) from error


class _NetworkError(Exception):
    """The network failed. Not an OSError, which `replacing` would take for a failure to write."""


def _received(response: HTTPResponse, url: str, hash_prefix: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    try:
        while chunk := response.read(1 << 20):
            digest.update(chunk)
            yield chunk
    except (OSError, HTTPException) as error:
        raise _NetworkError(f"{url} broke off: {error}") from error
    if not digest.hexdigest().startswith(hash_prefix):
        raise _NetworkError(f"what {url} sent has SHA-256 {digest.hexdigest()}, not {hash_prefix}…")

"""Files from the web: retried, resumed, with a progress bar on a terminal."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from tenacity import RetryCallState, Retrying, stop_after_delay, wait_exponential

from spectralgru.files import sha256
from spectralgru.pipeline.corpora.sources import RawFile, SourceError

BUSY = (416, 429, 500, 502, 503, 504)  # 416: the partial file is longer than the file; start again
TIMEOUT = httpx.Timeout(15, connect=4)  # seconds without a byte
SECONDS, BYTES = 600, 64 << 20  # for a whole download, all attempts together; the largest file has 5 MB


@dataclass(frozen=True)
class Url:
    """A file on the web. An interrupted download stays in the folder as `.partial`; the next call resumes it."""

    url: str

    def __str__(self) -> str:
        return self.url

    def obtain(self, file: RawFile, target: Path, folder: Path) -> None:
        """Download the file."""
        # The name depends on the address, so that a partial file is not completed from another one.
        tag = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        partial = folder / f"{file.name}.{tag}.partial"
        resumed = partial.exists()
        self._download(partial, file.name)
        if resumed and sha256(partial) not in file.sha256:  # the partial file was of something else
            partial.unlink()
            self._download(partial, file.name)
        partial.replace(target)

    def _download(self, partial: Path, name: str) -> None:
        console = Console(stderr=True)
        columns = TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        wait, deadline = wait_exponential(multiplier=0.25, max=4), time.monotonic() + SECONDS
        stop = stop_after_delay(SECONDS)
        try:
            with (
                Progress(*columns, console=console, disable=not console.is_terminal) as bar,
                httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client,
                _closed_after(SECONDS, client),
            ):
                retrying = Retrying(retry=_worth_retrying, wait=wait, stop=stop, reraise=True)
                retrying(_resume, client, self.url, partial, bar)
        except httpx.HTTPStatusError as error:
            raise SourceError(f"HTTP {error.response.status_code} {error.response.reason_phrase}") from None
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            RuntimeError,
        ) as error:  # RuntimeError: the client is closed
            if time.monotonic() >= deadline:
                raise SourceError(f"not received after {SECONDS} s") from None
            raise SourceError(f"{error}" or type(error).__name__) from None


@contextmanager
def _closed_after(seconds: float, client: httpx.Client) -> Iterator[None]:
    """Close the client when its time is up, whatever it waits for: a server may send headers forever."""
    timer = Timer(seconds, client.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _worth_retrying(state: RetryCallState) -> bool:
    """Five attempts at a broken transfer or a busy server, two without a connection: there may be no network."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, httpx.HTTPStatusError):
        return state.attempt_number < 5 and error.response.status_code in BUSY
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return state.attempt_number < 2
    return isinstance(error, httpx.TransportError) and state.attempt_number < 5


def _resume(client: httpx.Client, url: str, partial: Path, bar: Progress) -> None:
    """Append the rest of `url` to `partial`. Raises SourceError if it is too long."""
    have = partial.stat().st_size if partial.exists() else 0
    # Compression would make byte ranges meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            partial.unlink()
        response.raise_for_status()
        if response.status_code != 206:
            have = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        task = bar.add_task(url, total=have + int(length) if length else None, completed=have)
        try:
            with partial.open("ab" if have else "wb") as output:
                for chunk in response.iter_raw():
                    have += len(chunk)
                    if have > BYTES:
                        output.truncate(0)
                        raise SourceError(f"more than {BYTES} bytes")
                    output.write(chunk)
                    bar.advance(task, len(chunk))
        finally:
            bar.remove_task(task)

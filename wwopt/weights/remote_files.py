"""Safetensors files and sharded folders at an address that `fsspec` reaches, by ranges of bytes.

Headers are read first, and a tensor's own bytes when it is asked for: one layer of a remote
checkpoint costs one layer. The header is held to what a local file's is, by the same library: it is
written in front of a hole as long as the rest of the remote file, which takes no room on a disk.
"""

import functools
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import torch

from wwopt.weights.safetensors_files import LONGEST_HEADER, broken, open_safetensors
from wwopt.weights.stored_tensors import StoredTensor, WeightsError
from wwopt.wording import first_line

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.:-]+://")  # two letters at least: C:// is a drive
_HTTP = ("http", "https")
_MISSING = (403, 404, 410)  # stores that may not be listed say "forbidden" of what is not there
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d+/(\d{1,19})")
_PIECE = 2**20  # bytes


def is_remote(path: object) -> bool:
    """Whether a path is an address such as ``s3://bucket/model``."""
    return isinstance(path, str) and _URL.match(path) is not None


def show_url(url: str) -> str:
    """An address without its password and query, which may be a signature."""
    if "::" in url:
        return f"{url.partition('::')[0]}::…"
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def join_url(folder: str, name: str) -> str:
    """The address of a file in a folder; what follows a "?" stays where it is."""
    parts = urlsplit(folder)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def exists_remotely(url: str) -> bool:
    """Whether there is a file at an address.

    Raises:
        WeightsError: if its host cannot be reached.
    """
    with _explained(url):
        return _read_start(url, 1) is not None


def read_remote_file(url: str, *, most: int) -> bytes | bytearray | None:
    """A whole small file; None where there is none.

    Args:
        url: its address.
        most: bytes that it may have.

    Raises:
        WeightsError: if it cannot be reached or is longer.
    """
    with _explained(url):
        found = _read_start(url, most)
    if found is None:
        return None
    content, size = found
    if size > most:
        raise WeightsError(f"{show_url(url)} has {size} bytes, more than {most}; is it JSON?")
    return content


def open_remote_safetensors(url: str) -> list[StoredTensor]:
    """Describe every tensor of a file, in natural order of names.

    Raises:
        WeightsError: if it cannot be reached, is no sound safetensors file, or its server does not
            read ranges of bytes.
    """
    with _explained(url):
        found = _read_start(url, 8)
        if found is None:
            raise WeightsError(f"{show_url(url)} does not exist, or may not be read")
        start, size = found
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, LONGEST_HEADER):
            fault = f"it has {size} bytes, and starts with {start.hex(' ') or 'nothing'}"
            raise broken(show_url(url), fault)
        header = _read_range(url, 8, 8 + length)
    # The checks of a local file are made on one: a hole stands for the values.
    with tempfile.TemporaryDirectory(prefix="wwopt-") as folder:
        local = Path(folder) / "model.safetensors"
        try:
            with open(local, "wb") as file:
                file.write(start + header)
                file.truncate(size)
            entries: dict[str, Any] = {}

            def place(tensor: StoredTensor) -> StoredTensor:
                if not entries:  # not before the checks
                    entries.update(json.loads(header))
                return _place(tensor, url, entries, 8 + length)

            return open_safetensors(local, called=show_url(url), place=place)
        except OSError as error:
            raise broken(show_url(url), f"it claims {size} bytes ({error.strerror})") from error


def read_remote_tensor(
    url: str, name: str, shape: tuple[int, ...], dtype: str, start: int, end: int
) -> torch.Tensor:
    """Read one tensor of a file, by one range of bytes.

    Raises:
        WeightsError: if the file vanished or is shorter than it was.
    """
    with _explained(url):
        content = _read_range(url, start, end)
    if not content:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    # torch warns of memory that must not be written to.
    values = content if isinstance(content, bytearray) else bytearray(content)
    return torch.frombuffer(values, dtype=getattr(torch, dtype)).reshape(shape)


def _place(tensor: StoredTensor, url: str, entries: Mapping[str, Any], values: int) -> StoredTensor:
    start, end = (values + offset for offset in entries[tensor.name]["data_offsets"])
    return replace(
        tensor,
        read=partial(read_remote_tensor, url, tensor.name, tensor.shape, tensor.dtype, start, end),
        identity=(url, tensor.name),
    )


def _open_files(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    scheme = urlsplit(url).scheme.lower()
    if "::" in url:
        raise WeightsError(f"{show_url(url)} chains several file systems; pass a plain address")
    if scheme == "file":
        raise WeightsError(f"{show_url(url)} is a file on this machine; pass its path")
    try:
        import fsspec
    except ImportError as error:
        raise WeightsError(
            f"{show_url(url)} is an address: pip install 'wwopt[remote]' to read it"
        ) from error
    try:
        files = _http_files(os.getpid()) if scheme in _HTTP else fsspec.filesystem(scheme)
    except ImportError as error:  # a package for this protocol
        raise WeightsError(
            f"{show_url(url)} needs another package: {first_line(error)}; https:// needs "
            "pip install 'wwopt[remote]'"
        ) from error
    except ValueError as error:  # a protocol that nobody knows
        raise WeightsError(f"{show_url(url)} cannot be read: {first_line(error)}") from error
    return files, files._strip_protocol(url)


@functools.cache
def _http_files(process: int) -> Any:
    """fsspec's, which is told of every redirect before it is followed.

    Args:
        process: its id; connections belong to the process that opened them.
    """
    import aiohttp
    import fsspec

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    # A large tensor takes its time; a server that has stopped sending does not answer any more.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return fsspec.filesystem("http", client_kwargs={"trace_configs": [trace], "timeout": timeout})


async def _check_redirect(_: object, __: object, event: Any) -> None:
    target = event.response.headers.get("Location", "")
    scheme = urlsplit(urljoin(str(event.url), target)).scheme.lower()
    if scheme != event.url.scheme:
        raise WeightsError(
            f"{show_url(str(event.url))} redirects from {event.url.scheme} to {scheme}, which is "
            f"refused; pass the address {show_url(target)} itself if you trust it"
        )


def _read_start(url: str, length: int) -> tuple[bytes | bytearray, int] | None:
    """Up to so many bytes from the start of a file, and its size; None where there is none."""
    files, path = _open_files(url)
    if urlsplit(url).scheme.lower() in _HTTP:
        from fsspec.asyn import sync

        found: tuple[bytes | bytearray, int] | None = sync(
            files.loop, _get_range, files, path, 0, length
        )
        return found
    try:
        info = files.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if info["type"] != "file":
        return None
    size = int(info["size"])
    return files.cat_file(path, start=0, end=min(length, size)) if size else b"", size


def _read_range(url: str, start: int, end: int) -> bytes | bytearray:
    """Exactly these bytes of a file that is there."""
    if start == end:
        return b""
    files, path = _open_files(url)
    if urlsplit(url).scheme.lower() in _HTTP:
        from fsspec.asyn import sync

        found = sync(files.loop, _get_range, files, path, start, end)
        content: bytes | bytearray = b"" if found is None else found[0]
    else:
        content = files.cat_file(path, start=start, end=end)
    if len(content) != end - start:
        raise WeightsError(
            f"{show_url(url)} has {len(content)} of the bytes {start} to {end}; it changed since "
            "it was opened, read it again"
        )
    return content


async def _get_range(
    files: Any, url: str, start: int, end: int
) -> tuple[bytes | bytearray, int] | None:
    """Bytes of a file on a server of HTTP, and its size; None where there is none.

    fsspec's own reads all that a server sends in answer; this no more than was asked for.
    """
    session = await files.set_session()
    asked = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    async with session.get(files.encode_url(url), headers=asked) as answer:
        if answer.status in _MISSING:
            return None
        if answer.status == 416:  # nothing there: the file is empty, or shorter than it was
            return b"", 0
        answer.raise_for_status()
        range_of = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if answer.status != 206 or range_of is None or int(range_of[1]) != start:
            raise WeightsError(
                f"{show_url(url)}: its server does not read ranges of bytes; download the file"
            )
        content = bytearray()
        while len(content) < end - start and (piece := await answer.content.read(_PIECE)):
            content += piece
        del content[end - start :]
        return content, int(range_of[2])


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn whatever a file system raises inside the block into a `WeightsError` of one line."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # each of fsspec's file systems has errors of its own
        reason = first_line(error, named=True).replace(url, show_url(url))
        raise WeightsError(f"{show_url(url)} cannot be read: {reason}") from error

"""Content codings of RFC 9110, section 8.4.1, taken off an answer piece by piece, so that it can be read.

gzip and deflate need nothing. Brotli and Zstandard are decoded by the packages that httpx and httpx2 decode them with:
a client that lacks them does not ask for these codings.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

__all__ = ["ContentDecoder", "UndecodableError"]

#: gzip and deflate give at most so much at once, however well the data was compressed.
MAX_PIECE_BYTES = 1 << 20
#: More codings one over the other are not honest.
MAX_CODINGS = 5

Decode = Callable[[bytes], Iterator[bytes]]


class UndecodableError(Exception):
    """The coding is not known here, its package is not installed, or the data is damaged."""


class ContentDecoder:
    """Takes the codings off that `content-encoding` names, in the order in which they were applied."""

    def __init__(self, codings: Sequence[bytes]) -> None:
        """Raises `UndecodableError` for codings that cannot be taken off here."""
        if len(codings) > MAX_CODINGS:
            raise UndecodableError(f"more than {MAX_CODINGS} codings")
        self._steps: list[Decode] = []
        for coding in reversed(codings):
            make = _MAKERS.get(coding)
            if make is None:
                raise UndecodableError(f"the coding {coding.decode('latin-1')!r} is not known")
            self._steps.append(make())

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` decodes to, in pieces. Raises `UndecodableError` for damaged data."""
        pieces: Iterator[bytes] = iter((data,))
        for step in self._steps:
            pieces = _through(step, pieces)
        try:
            yield from pieces
        except Exception as error:
            # Each package has an exception of its own.
            raise UndecodableError(f"{type(error).__name__} while decoding") from error


def _through(step: Decode, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from step(piece)


class _Inflating:
    """gzip, or deflate in either of the two forms that servers send it in."""

    def __init__(self, *, window_bits: int, raw_instead: bool = False) -> None:
        self._inflate = zlib.decompressobj(window_bits)
        self._raw_instead = raw_instead

    def __call__(self, data: bytes) -> Iterator[bytes]:
        raw_instead, self._raw_instead = self._raw_instead, False
        try:
            piece = self._inflate.decompress(data, MAX_PIECE_BYTES)
        except zlib.error:
            if not raw_instead:
                raise
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            piece = self._inflate.decompress(data, MAX_PIECE_BYTES)
        while piece:
            yield piece
            piece = self._inflate.decompress(self._inflate.unconsumed_tail, MAX_PIECE_BYTES)


def _brotli() -> Decode:
    decompressor = _first_of("brotli", "brotlicffi").Decompressor()
    process = getattr(decompressor, "process", None) or decompressor.decompress

    def decode(data: bytes) -> Iterator[bytes]:
        if data:
            yield process(data)

    return decode


class _Unzstd:
    """Zstandard, whose data may be several frames, by any of the packages that offer it."""

    def __init__(self) -> None:
        module = _first_of("compression.zstd", "backports.zstd", "zstandard")
        make: Callable[[], Any] = module.ZstdDecompressor
        self._new = make if module.__name__ != "zstandard" else lambda: make().decompressobj()
        self._frame = self._new()

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._frame.eof:
                self._frame = self._new()
            yield self._frame.decompress(data)
            data = self._frame.unused_data if self._frame.eof else b""


def _first_of(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UndecodableError(f"none of {', '.join(names)} is installed")


_MAKERS: dict[bytes, Callable[[], Decode]] = {
    b"gzip": lambda: _Inflating(window_bits=zlib.MAX_WBITS | 16),
    b"x-gzip": lambda: _Inflating(window_bits=zlib.MAX_WBITS | 16),
    b"deflate": lambda: _Inflating(window_bits=zlib.MAX_WBITS, raw_instead=True),
    b"br": _brotli,
    b"zstd": _Unzstd,
}

"""Every content coding by itself: round trips, damage, bombs."""

from __future__ import annotations

import gzip
import os
import random
import tracemalloc
import zlib

import pytest
import zstandard

from modelport.adapters import adapters_of
from modelport.core.errors import LimitError
from modelport.serve.compression import Coding

CODINGS: list[Coding] = [record.load() for record in adapters_of("coding")]
LIMIT = 1 << 20
DAMAGED = (ValueError, EOFError, zlib.error)

each = pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.names[0])


def test_there_are_three() -> None:
    assert [coding.names for coding in CODINGS] == [("zstd",), ("gzip", "x-gzip"), ("deflate",)]


@each
@pytest.mark.parametrize(
    "body",
    [b"x", b"{}" * 1000, os.urandom(300_000), b"\0" * LIMIT],
    ids=["a byte", "text", "random", "the limit"],
)
def test_round_trips(coding: Coding, body: bytes) -> None:
    assert coding.decode(coding.encode(body), LIMIT) == body


@each
def test_the_limit_is_exact(coding: Coding) -> None:
    compressed = coding.encode(bytes(1000))
    assert len(coding.decode(compressed, 1000)) == 1000
    with pytest.raises(LimitError, match="more than 999 bytes"):
        coding.decode(compressed, 999)


@each
@pytest.mark.parametrize("body", [b"{}" * 50, os.urandom(200_000)], ids=["small", "large"])
def test_every_cut_is_seen(coding: Coding, body: bytes) -> None:
    compressed = coding.encode(body)
    cuts = range(1, len(compressed)) if len(body) < 1000 else [1, 99_999, len(compressed) - 1]
    for cut in cuts:
        with pytest.raises(DAMAGED):
            coding.decode(compressed[:cut], LIMIT)


@each
def test_bytes_behind_the_end_are_refused(coding: Coding) -> None:
    with pytest.raises(DAMAGED):
        coding.decode(coding.encode(b"{}") + b"garbage", LIMIT)


@each
def test_random_damage_never_passes_the_limit(coding: Coding) -> None:
    chance = random.Random(4)
    good = coding.encode(b"".join(b"%d," % number for number in range(20_000)))
    for _ in range(300):
        body = bytearray(good)
        for _ in range(chance.randrange(1, 5)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            assert len(coding.decode(bytes(body), LIMIT)) <= LIMIT
        except (*DAMAGED, LimitError):
            pass


@each
def test_a_bomb_costs_no_more_than_the_limit(coding: Coding) -> None:
    """Ten megabytes, a thousand times as much inside."""
    bomb = bomb_of(coding)
    tracemalloc.start()
    try:
        with pytest.raises(LimitError):
            coding.decode(bomb, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * LIMIT


def bomb_of(coding: Coding) -> bytes:
    if coding.names[0] == "zstd":
        return coding.encode(bytes(10 << 20)) * 10
    stream = zlib.compressobj(9, wbits=31 if coding.names[0] == "gzip" else 15)
    zeros = bytes(1 << 20)
    parts = [stream.compress(zeros) for _ in range(10_000)]
    return b"".join([*parts, stream.flush()])


def test_gzip_of_several_members() -> None:
    gzip_coding = CODINGS[1]
    parts = [os.urandom(50_000) for _ in range(20)]
    assert gzip_coding.decode(b"".join(map(gzip.compress, parts)), LIMIT) == b"".join(parts)
    with pytest.raises(LimitError):
        gzip_coding.decode(b"".join(map(gzip.compress, parts)), 999_999)
    with pytest.raises(DAMAGED):
        gzip_coding.decode(gzip.compress(b"a") + gzip.compress(b"b")[:-1], LIMIT)


def test_millions_of_empty_members() -> None:
    with pytest.raises(LimitError, match="members"):
        CODINGS[1].decode(gzip.compress(b"") * 1_000_000, LIMIT)
    with pytest.raises(LimitError, match="members"):
        CODINGS[0].decode(zstandard.compress(b"") * 100_000, LIMIT)


def test_zstd_frames_without_a_size_and_behind_each_other() -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    unsized = compressor.compress(b"abc" * 1000) + compressor.flush()
    zstd = CODINGS[0]
    assert zstd.decode(unsized + unsized, LIMIT) == b"abc" * 2000
    with pytest.raises(DAMAGED):
        zstd.decode(unsized + unsized[:-2], LIMIT)


def test_zstd_windows_that_take_too_much_memory() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(DAMAGED, match="memory"):
        CODINGS[0].decode(compressor.compress(b"abc") + compressor.flush(), LIMIT)


def test_a_zstd_frame_that_announces_petabytes() -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + (1 << 50).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises((*DAMAGED, LimitError)):
        CODINGS[0].decode(frame, LIMIT)


def test_deflate_without_its_wrapper() -> None:
    bare = zlib.compressobj(wbits=-15)
    with pytest.raises(DAMAGED):
        CODINGS[2].decode(bare.compress(b"{}" * 10) + bare.flush(), LIMIT)

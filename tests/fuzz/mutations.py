"""Changes of an input: bytes, words, lines, and the way back to what an input needs.

Law: every chance is the given one, so that one seed is one run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MAX_BYTES = 2048


def mutated(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    """A few changes on top of each other; `other` is what may be spliced in."""
    for _ in range(1 << chance.randrange(4)):
        change = chance.choice((_flip, _byte, _cut, _repeat, _word, _word, _splice, _lines, _lines, _digit))
        data = change(data, other, words, chance)
    return data[:MAX_BYTES]


def _slice(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + 1 + int(chance.expovariate(0.1)))


def _flip(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _byte(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    new = bytes(
        [chance.choice(b'"\\,;=:/{}[]*%&# \t\x00\xff') if chance.random() < 0.6 else chance.randrange(256)]
    )
    return data[:at] + new + data[at + chance.randrange(2) :]


def _digit(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    places = [at for at, byte in enumerate(data) if 48 <= byte < 58]
    if not places:
        return data
    at = chance.choice(places)
    return (
        data[:at] + chance.choice((b"0", b"1", b"9", b"-1", b"9" * 20, b"9" * 400, b"1.5")) + data[at + 1 :]
    )


def _cut(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = _slice(data, chance)
    return data[:start] + data[end:]


def _repeat(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = _slice(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 30)) + data[end:]


def _word(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = _slice(data, chance)
    return data[:start] + chance.choice(words) + data[end if chance.random() < 0.5 else start :]


def _splice(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = _slice(other, chance)
    at = chance.randrange(len(data) + 1)
    return data[:at] + (other[start:end] + data[at:] if chance.random() < 0.5 else other[start:])


def _lines(data: bytes, other: bytes, words: Sequence[bytes], chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    match chance.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        case 2:
            lines[at] = chance.choice(words)
        case 3:
            lines.insert(at, chance.choice(words))
        case _:
            lines.insert(at, chance.choice(other.split(b"\n")))
    return b"\n".join(lines)


def shrunk(data: bytes, keeps: Callable[[bytes], bool], *, finely: bool = True) -> bytes:
    """What is left when lines are removed, then (`finely`) ever smaller pieces, as long as `keeps` says yes."""
    lines = data.split(b"\n")
    for at in reversed(range(len(lines))):
        fewer = lines[:at] + lines[at + 1 :]
        if keeps(b"\n".join(fewer)):
            lines = fewer
    data = b"\n".join(lines)
    size = len(data) // 2 if finely else 0
    while size:
        at = 0
        while at < len(data):
            fewer_bytes = data[:at] + data[at + size :]
            if keeps(fewer_bytes):
                data = fewer_bytes
            else:
                at += size
        size //= 2
    return data

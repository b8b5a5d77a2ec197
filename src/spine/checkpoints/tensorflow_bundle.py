"""Reads checkpoints of TensorFlow (format V2, `tf.train.Saver`) without TensorFlow.

A checkpoint consists of an index and of data files, which hold the values of the tensors one after
another. The index is a sorted table in the format of LevelDB: blocks of keys and values, the last of
which lists the other blocks. A key is the name of a tensor, its value is a protocol buffer with its
type, shape and place (tensorflow/core/protobuf/tensor_bundle.proto). Nothing in a file is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from spine.checkpoints.mapping import State

INDEX_SUFFIX = ".index"
MAGIC = 0xDB4775248B80FB57  # the last 8 bytes of the index
FOOTER_SIZE, TRAILER_SIZE = 48, 5  # bytes of the footer of the index; of the compression and checksum after each block
DTYPES = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}  # other types are no weights
AVERAGE = "/ExponentialMovingAverage"  # suffix of the name of an averaged weight
OPTIMIZER = ("/RMSProp", "/RMSProp_1", "/Momentum", "/Adam", "/Adam_1")  # suffixes of the state of an optimizer

Fields = dict[int, list[int | bytes]]  # of a protocol buffer: number of the field -> its values


class Entry(NamedTuple):
    """Type, shape and place of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    shard: int  # number of the data file
    offset: int
    size: int  # in bytes


def read_bundle(index: Path) -> State:
    """Returns the weights of a checkpoint by name. Averaged weights take the place of those that they average.

    `index`: its file that ends with ".index". Raises ValueError if a file is damaged or of another kind, and
    OSError if the data are missing.
    """
    entries, shards = read_index(index.read_bytes())
    averages = {name.removesuffix(AVERAGE): entry for name, entry in entries.items() if name.endswith(AVERAGE)}
    weights = {name: entry for name, entry in entries.items() if not name.endswith((AVERAGE, *OPTIMIZER))}
    return {name: _read_tensor(index, entry, shards) for name, entry in (weights | averages).items()}


def read_index(content: bytes) -> tuple[dict[str, Entry], int]:
    """Returns the entries of all floating-point tensors by name, and the number of data files.

    Raises ValueError if the content is damaged or of another kind.
    """
    values = values_of_index(content)
    header = _fields(values.pop(b""))
    if header.get(2, [0]) != [0]:
        raise ValueError("its numbers are big-endian")
    messages = {key.decode(): _fields(value) for key, value in values.items()}
    entries = {name: _entry(name, message) for name, message in messages.items() if _number(message, 1) in DTYPES}
    return entries, _number(header, 1)


def _read_tensor(index: Path, entry: Entry, shards: int) -> torch.Tensor:
    """The values of one tensor, from a data file beside the index."""
    path = index.with_suffix(f".data-{entry.shard:05}-of-{shards:05}")
    with path.open("rb") as file:
        file.seek(entry.offset)
        values = file.read(entry.size)
    if len(values) != entry.size:
        raise ValueError(f"'{path.name}' is too short")
    return torch.frombuffer(bytearray(values), dtype=entry.dtype).reshape(entry.shape)


def _entry(name: str, message: Fields) -> Entry:
    """The message BundleEntryProto."""
    if 7 in message:
        raise ValueError(f"'{name}' is stored in slices")
    (shape,) = message.get(2, [b""])
    dimensions = [_number(_fields(dimension), 1) for dimension in _fields(shape).get(2, [])]
    return Entry(DTYPES[_number(message, 1)], tuple(dimensions), *(_number(message, field) for field in (3, 4, 5)))


# ---- tables of LevelDB ---------------------------------------------------------------------------------------------------


def values_of_index(content: bytes) -> dict[bytes, bytes]:
    """Returns all keys and values of a table. Raises ValueError if it is damaged, compressed or of another kind."""
    if len(content) < FOOTER_SIZE or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise ValueError("it is not an index of a TensorFlow checkpoint")
    footer = content[-FOOTER_SIZE:]
    statistics, position = _handle(footer, 0)
    _block(content, statistics)  # empty
    list_of_blocks, _ = _handle(footer, position)
    handles = [_handle(value, 0)[0] for _, value in _records(_block(content, list_of_blocks))]
    return {key: value for handle in handles for key, value in _records(_block(content, handle))}


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """The offset and the size of a block, and the position after them."""
    offset, position = _varint(content, position)
    size, position = _varint(content, position)
    return (offset, size), position


def _block(content: bytes, handle: tuple[int, int]) -> bytes:
    """The content of a block, whose checksum is verified."""
    start, size = handle
    block, trailer = content[start : start + size], content[start + size : start + size + TRAILER_SIZE]
    compression, checksum = struct.unpack("<BI", trailer)
    if checksum != masked_crc32c(block + trailer[:1]):
        raise ValueError("wrong checksum in its index")
    if compression:
        raise ValueError("its index is compressed")
    return block


def _records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block. A key may begin with a part of the one before, which is not stored again."""
    (restarts,) = struct.unpack("<I", block[-4:])
    key, position, end = b"", 0, len(block) - 4 * (restarts + 1)
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        size, position = _varint(block, position)
        key = key[:shared] + block[position : position + added]
        position += added
        yield key, block[position : position + size]
        position += size


def masked_crc32c(content: bytes) -> int:
    """The checksum CRC-32C with LevelDB's mask."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


CRC_TABLE = [_crc_of_byte(value) for value in range(256)]


# ---- protocol buffers ----------------------------------------------------------------------------------------------------


def _fields(message: int | bytes) -> Fields:
    """The fields of a protocol buffer. Numbers of fixed size are left as bytes."""
    if isinstance(message, int):
        raise ValueError("a number was found in place of a message")
    found: Fields = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value: int | bytes
        if tag & 7 == 0:
            value, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, position = _varint(message, position)
            value = message[position : position + size]
            position += size
        found.setdefault(tag >> 3, []).append(value)
    return found


def _number(fields: Fields, field: int) -> int:
    """The value of a field, which is left out if it is 0."""
    (value,) = fields.get(field, [0])
    if not isinstance(value, int):
        raise ValueError("a message was found in place of a number")
    return value


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of 7 bits in each byte, the lowest first, and the position after it."""
    number = shift = 0
    while True:
        byte = content[position]
        number |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return number, position
        shift += 7

"""Writes checkpoints of TensorFlow (format V2) for tests."""

import struct
from pathlib import Path

import numpy as np

from spine.checkpoints.tensorflow_bundle import MAGIC, masked_crc32c

DTYPES = {np.dtype(np.float32): 1, np.dtype(np.float64): 2, np.dtype(np.int64): 9, np.dtype(np.float16): 19}


def write_bundle(prefix, arrays, dtypes=DTYPES, compression=0):
    """Writes `prefix`.index and `prefix`.data-00000-of-00001. `arrays`: name -> array. Returns the path of the index."""
    data, entries = b"", {b"": field(1, 1) + field(3, field(1, 1))}  # one data file, version 1
    for name, array in sorted(arrays.items()):
        values = np.ascontiguousarray(array).tobytes()
        shape = b"".join(field(2, field(1, side)) for side in array.shape)
        checksum = bytes([6 << 3 | 5]) + struct.pack("<I", masked_crc32c(values))
        place = (field(4, len(data)) if data else b"") + field(5, len(values)) + checksum
        entries[name.encode()] = field(1, dtypes[array.dtype]) + field(2, shape) + place
        data += values
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    index = Path(f"{prefix}.index")
    index.write_bytes(table(entries, compression))
    return index


def table(entries, compression=0):
    """A table of one block, with keys in full, and the blocks that describe it."""
    content, handles = b"", []
    last = max(entries)
    for records in (entries, {}):  # the values; statistics, which are empty
        handles.append(varint(len(content)) + varint(len(packed(records))))
        content += packed(records) + trailer(packed(records), compression)
    blocks = packed({last: handles[0]})
    handles.append(varint(len(content)) + varint(len(blocks)))
    content += blocks + trailer(blocks, compression)
    return content + (handles[1] + handles[2]).ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def packed(records):
    """A block: keys and values, and one restart."""
    found = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in records.items())
    return found + struct.pack("<II", 0, 1)


def trailer(block, compression):
    return bytes([compression]) + struct.pack("<I", masked_crc32c(block + bytes([compression])))


def field(number, value):
    """A field of a protocol buffer: a number or a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])

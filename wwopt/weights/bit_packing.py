"""Small whole numbers, packed without gaps: two of four bits a byte, eight of three bits in three.

Value k fills bits k·b to (k + 1)·b of the stream, and bit j of the stream is bit j mod 8 of byte
j div 8: "little" in numpy's `packbits`. Of two nibbles the lower is the earlier value.
"""

import numpy as np
import torch

_CHUNK = 1 << 20  # values unpacked at once, a multiple of 8: 8 bytes of memory each


def count_packed(count: int, bits: int) -> int:
    """Bytes of so many packed values."""
    return -(-count * bits // 8)


def pack_bits(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack whole numbers from 0 to 2^bits - 1.

    Args:
        values: uint8 or bool, of any shape, read row by row.
        bits: of each, 1 to 8.

    Returns:
        uint8, shape (ceil(n·bits/8),); the bits after the last value are 0.
    """
    flat = values.reshape(-1).to(torch.uint8).numpy()
    packed = [
        np.packbits(
            np.unpackbits(chunk[:, None], axis=1, count=bits, bitorder="little"), bitorder="little"
        )
        for chunk in (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    ]
    return torch.from_numpy(np.concatenate(packed)) if packed else torch.empty(0, dtype=torch.uint8)


def unpack_bits(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The first values of what `pack_bits` made.

    Args:
        packed: uint8, shape (at least ceil(count·bits/8),).
        bits: of each value, 1 to 8.
        count: of values.

    Returns:
        uint8, shape (count,).
    """
    stream, values = packed.numpy(), np.empty(count, np.uint8)
    for start in range(0, count, _CHUNK):
        end = min(start + _CHUNK, count)
        part = stream[start * bits // 8 : count_packed(end, bits)]
        ones = np.unpackbits(part, count=(end - start) * bits, bitorder="little")
        packed_again = np.packbits(ones.reshape(-1, bits), axis=1, bitorder="little")
        values[start:end] = packed_again[:, 0]
    return torch.from_numpy(values)

"""Packing against a number that is built bit by bit."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from wwopt.weights import bit_packing
from wwopt.weights.bit_packing import count_packed, pack_bits, unpack_bits


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=70))
def test_the_stream_is_one_long_number(bits: int, values: list[int]) -> None:
    values = [value % 2**bits for value in values]
    packed = pack_bits(torch.tensor(values, dtype=torch.uint8), bits)
    whole = sum(value << (bits * k) for k, value in enumerate(values))
    assert bytes(packed.numpy()) == whole.to_bytes(count_packed(len(values), bits), "little")
    assert unpack_bits(packed, bits, len(values)).tolist() == values


def test_two_nibbles_a_byte_the_lower_first() -> None:
    assert pack_bits(torch.tensor([1, 2, 3], dtype=torch.uint8), 4).tolist() == [0x21, 0x03]


def test_more_than_is_unpacked_at_once() -> None:
    many = 3 * bit_packing._CHUNK + 5
    values = torch.randint(0, 8, (many,), dtype=torch.uint8)
    assert torch.equal(unpack_bits(pack_bits(values, 3), 3, many), values)

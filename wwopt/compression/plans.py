"""What is to be done with one layer, and what it then takes in a file."""

from dataclasses import dataclass

from wwopt.compression.errors import CompressionError
from wwopt.compression.pruning import count_zeros
from wwopt.compression.quantization import SCALE_BYTES, check_bits, count_groups
from wwopt.weights.bit_packing import count_packed


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """How one layer is stored; by default as it is.

    With a rank the layer becomes two factors, and what is said below holds for each of them. First
    it is cut to its rank, then pruned, then rounded.
    """

    bits: int | None = None  # of a weight, 2 to 8; None: not rounded
    group: int | None = None  # inputs that share a scale; None: all inputs of an output
    clip: bool = False  # whether large weights may be clipped for less squared error
    compensate: bool = False  # whether later inputs make up for the rounding of earlier ones
    sparsity: float = 0.0  # share of weights that are set to zero, the smallest by magnitude
    rank: int | None = None  # None: not factored

    def __post_init__(self) -> None:
        if self.bits is not None:
            check_bits(self.bits, self.group)
        elif self.group is not None or self.clip or self.compensate:
            raise CompressionError(
                "a group, clipping and compensation belong to rounding: give bits"
            )
        count_zeros(1, self.sparsity)
        if self.rank is not None and self.rank < 1:
            raise CompressionError(f"rank must be at least 1, got {self.rank}")

    @property
    def changes_nothing(self) -> bool:
        """Whether the layer stays as it is."""
        return self == LayerPlan()


def count_bytes(shape: tuple[int, int, int], itemsize: int, plan: LayerPlan) -> int:
    """Bytes of a layer's tensors in the file, scales and masks included, the header not.

    Args:
        shape: of the layer, (slices, rows, columns); rows are outputs.
        itemsize: bytes of a weight as it is now.
        plan: what is done with it.
    """
    slices, rows, columns = shape
    if plan.rank is None:
        return _count_piece(slices * rows, columns, itemsize, plan)
    return sum(_count_piece(slices * plan.rank, side, itemsize, plan) for side in (rows, columns))


def _count_piece(rows: int, columns: int, itemsize: int, plan: LayerPlan) -> int:
    size = rows * columns
    bits = plan.bits or 8 * itemsize
    scales = 0 if plan.bits is None else SCALE_BYTES * rows * count_groups(columns, plan.group)
    kept = size - count_zeros(size, plan.sparsity)
    dense = count_packed(size, bits)
    if is_stored_sparsely(size, kept, bits):
        return count_packed(size, 1) + count_packed(kept, bits) + scales
    return dense + scales


def is_stored_sparsely(size: int, kept: int, bits: int) -> bool:
    """Whether a bit for every weight and those that are kept take less than all of them.

    So it is from a sparsity of 1/bits on: 3 % of float32, 25 % of 4 bits.
    """
    return count_packed(size, 1) + count_packed(kept, bits) < count_packed(size, bits)

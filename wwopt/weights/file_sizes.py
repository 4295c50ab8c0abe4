"""How many bytes a safetensors file of given tensors has, before there is one."""

import json
from collections.abc import Mapping
from typing import Any

import torch

# The format's names of dtypes, in the order in which its writer lays tensors out: by alignment.
DTYPES = {
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def count_file_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> int:
    """Bytes of the file that safetensors' `save_file` makes, header included; none is read."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = {dtype: number for number, dtype in enumerate(DTYPES)}
    offset = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (place[item[1].dtype], item[0])):
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return 8 + -(-len(text) // 8) * 8 + offset

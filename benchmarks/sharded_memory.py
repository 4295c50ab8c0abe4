"""How much memory does it take to read a sharded model, layer by layer?

    torchrun --standalone --nproc-per-node 2 benchmarks/sharded_memory.py --layers 8 --size 2048

Each process shards its model (FSDP2), notes how much memory it holds, and then gathers every layer
as `recorder.step` does, or by torch's `full_tensor`. Printed is, for each process, by how much its
peak rose above that, beside the size of a layer and of the model. With --analyse rank 0 also
computes the spectra, by which it needs what one layer takes in a single process too.

glibc keeps freed pieces below 32 MB for later: MALLOC_MMAP_THRESHOLD_=65536 in the environment, or
larger layers, show what is needed.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import wwopt
from wwopt.integrations.processes import join_ranks
from wwopt.weights.sharded_modules import named_tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--full-tensor", action="store_true")
    parser.add_argument("--analyse", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ranks = join_ranks()
    size = options.size
    model = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(options.layers)))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    shown = ranks.show(model)
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if options.full_tensor:
        for layer in model:
            layer.weight.detach().full_tensor()
    elif not ranks.leads:
        ranks.listen()
    else:
        if options.analyse:
            wwopt.analyze(shown, shuffles=0)
        else:
            for name in named_tensors(model):
                ranks.gather(name)
        ranks.send(("over", None))
    rose = read_status("VmHWM") - before
    told: list[float] = [0.0] * ranks.size
    dist.all_gather_object(told, rose, group=ranks.group)
    if ranks.leads:
        layer_size = 4 * size * size / 2**20
        print(
            f"model {options.layers * layer_size:.0f} MB, layer {layer_size:.0f} MB, peak rose by"
        )
        for rank, megabytes in enumerate(told):
            print(f"rank {rank}: {megabytes:.1f} MB")
    dist.destroy_process_group()


def read_status(key: str) -> float:
    """A number of the kernel's on this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024.0


if __name__ == "__main__":
    main()

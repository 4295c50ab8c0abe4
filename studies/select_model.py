"""Which of 40 networks is best, without data: how many labelled examples is the answer worth?

    python studies/select_model.py --data FOLDER --out zoos   # 9 minutes on 1 core, then half a one

FOLDER holds MNIST's 10,000 test images (`t10k-images-idx3-ubyte.gz` and its labels); without it the
networks learn scikit-learn's digits, in 1 minute. Two architectures, an MLP and a small CNN, 20
networks of each, with random hyperparameters for each layer that reach into the region where
training collapses. Networks that the zoo folders below `--out` have already are not trained again;
`selection.csv` beside them has every network's accuracy and scores. What the methods are judged by
stands in `harness/selection_worth.py`.
"""

import argparse
from pathlib import Path

import torch

from harness.selection_worth import report
from harness.zoos.candidates import gather
from harness.zoos.digits import DIGITS

MNIST = ("mnist-mlp-seeds", "mnist-cnn")
METHODS = {
    "wwopt": "**wwopt, weights alone**",
    "alpha": "mean alpha",
    "alpha_hat": "alpha-hat",
    "log_norm": "log norm",
    "log_spectral_norm": "log spectral norm",
    "stable_rank": "stable rank",
    "kurtosis": "kurtosis of the entries",
    "size": "number of parameters (equal in an architecture)",
    "random": "random",
    "fitted": "four element moments a layer, fitted to other networks' test errors",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST's test images; none for digits")
    parser.add_argument("--out", type=Path, default=Path("zoos"))
    parser.add_argument("--tasks", nargs="+", help="of harness/zoos/tasks.py, in place of the two")
    parser.add_argument("--networks", type=int, default=20, help="trained of each architecture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    tasks = given.tasks or (MNIST if given.data else tuple(DIGITS))
    options = {"data": given.data, "jobs": given.jobs, "seed": given.seed}
    try:
        found = [gather(name, given.out / name, given.networks, **options) for name in tasks]
    except FileNotFoundError as error:
        parser.error(str(error))
    print(report(found, METHODS, seed=given.seed))


if __name__ == "__main__":
    main()

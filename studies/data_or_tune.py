"""Is `wwopt recommend` right? Situations from real data, in which every action was really taken.

    python studies/data_or_tune.py --data FOLDER --jobs 2         # about 40 core-minutes

For each of 58 situations (see `harness/scenarios/situations.py`): what a study and its probes know,
what `recommend` says under four sets of prices, and what each action then brought on test data. 36
of them were used to design the rules, the others were not looked at before. FOLDER holds MNIST's
test images and `tinyshakespeare.txt`. Interrupted, it goes on where it stopped; what it prints at
its end it prints again in seconds.
"""

import argparse
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from harness.scenarios.ablation import print_ablation
from harness.scenarios.judgement import judge, outlook
from harness.scenarios.records import live
from harness.scenarios.situations import SCENARIOS
from harness.scenarios.tables import print_calibration, print_scenarios, print_verdicts
from wwopt.recommendation.decisions import ENOUGH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data")
    parser.add_argument("--out", type=Path, default=Path("data-or-tune"))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--enough", type=float, default=ENOUGH, help="confidence to speak from")
    given = parser.parse_args()
    work = (delayed(live)(name, given.data, given.out) for name in given.scenarios)
    parallel = Parallel(given.jobs, return_as="generator")
    bar = tqdm(parallel(work), total=len(given.scenarios), desc="scenarios")
    lives = list(bar)
    gains = [outlook(lived) for lived in lives]
    cases = [
        c
        for lived, g in zip(lives, gains, strict=True)
        for c in judge(lived, g, enough=given.enough)
    ]
    print_scenarios(lives, gains, cases)
    print_verdicts(cases)
    print_calibration(lives, gains, cases)
    print_ablation(lives, gains, enough=given.enough)


if __name__ == "__main__":
    main()

"""Is `wwopt recommend` right? Situations from real data, in which every action was really taken.

    python studies/data_or_tune.py --data FOLDER --jobs 2         # two to three hours of one core

For each of 215 situations (see `harness/scenarios/situations.py`): what a study and its probes
know, what `recommend` says under four sets of prices, and what each action then brought on test
data. They came in five waves of 58, 33, 46, 38 and 40, most of kinds that those before lack. Before
each was looked at, the rules had been fixed by those before it; today's are by all. FOLDER
holds MNIST's test images and `tinyshakespeare.txt`. Interrupted, it goes on where it stopped; with
`--kept` it trains nothing, and judges the situations that were lived through in full.
"""

import argparse
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from harness.scenarios.fractions import print_fractions
from harness.scenarios.further import print_further
from harness.scenarios.judgement import Case, judge
from harness.scenarios.records import Lived, live
from harness.scenarios.situations import SCENARIOS
from harness.scenarios.tables import (
    print_calibration,
    print_price_curve,
    print_scenarios,
    print_score,
    print_verdicts,
)
from wwopt.recommendation.decisions import ENOUGH
from wwopt.recommendation.probes import TRAININGS

# Full trainings, spent in full; what is needed costs up to 3.625.
PRICES = (0.0, 3.625, TRAININGS, 12.0, 20.0, 30.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data")
    parser.add_argument("--out", type=Path, default=Path("data-or-tune"))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--enough", type=float, default=ENOUGH, help="confidence to speak from")
    parser.add_argument("--kept", action="store_true", help="train nothing, judge what is there")
    given = parser.parse_args()
    lives = _live(given)

    def judge_all(price: float | None) -> list[Case]:
        judged = (delayed(judge)(life, trainings=price, enough=given.enough) for life in lives)
        return [case for cases in Parallel(given.jobs)(judged) for case in cases]

    cases = judge_all(None)
    print_scenarios(lives, cases)
    print_verdicts(cases)
    print_calibration(lives, cases)
    print_further(lives, cases)
    print_score(lives, enough=given.enough)
    print_fractions(lives)
    by_price = {f"{price:g}": judge_all(price) for price in PRICES}
    print_price_curve({f"at most {TRAININGS:g}": cases} | by_price)


def _live(given: argparse.Namespace) -> list[Lived]:
    if given.kept:
        found = []
        for name in given.scenarios:
            try:
                found.append(live(name, given.data, given.out, train=False))
            except KeyError:
                continue
        return found
    work = (delayed(live)(name, given.data, given.out) for name in given.scenarios)
    parallel = Parallel(given.jobs, return_as="generator")
    return list(tqdm(parallel(work), total=len(given.scenarios), desc="scenarios"))


if __name__ == "__main__":
    main()

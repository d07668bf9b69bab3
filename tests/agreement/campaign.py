"""The agreement of `inspect` and `compile` at length: `python tests/agreement/campaign.py --cases 5000`.

A case is its number: --first N --cases 1 repeats it. The exit code is 1 where anything disagreed, or was raised that
is no refusal.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agreement.comparison import run_case


def main() -> int:
    """Run the cases and print what came of them."""
    parser = argparse.ArgumentParser(description="inspect and compile agree on random graphs and targets")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="take each so manyth case: shares of several processes")
    args = parser.parse_args()
    outcomes: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    slowest = (0.0, 0)
    for number in range(args.first, args.first + args.cases * args.every, args.every):
        start = time.perf_counter()
        try:
            outcomes[run_case(number)] += 1
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
            failures.append((number, text[:400]))
            print(f"FAILED {number}: {text[:400]}", flush=True)
        slowest = max(slowest, (time.perf_counter() - start, number))
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")
    print(f"{len(failures)} failed of {args.cases}; slowest {slowest[0]:.1f} s, case {slowest[1]}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())

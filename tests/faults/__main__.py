"""`make faults`: try everything, say what came out, and write docs/reliability.md."""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from faults.case import Outcome
from faults.kinds import all_cases
from faults.run import import_everything, try_case
from faults.world import make_world


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--only", action="append", help="kinds, or words of names")
    parser.add_argument("--every", type=int, default=1, help="every tenth case, say")
    parser.add_argument("--write", type=Path, help="where the page goes")
    parser.add_argument("--failing", type=Path, help="where the list of failing cases goes")
    parser.add_argument("--json", type=Path, help="where every outcome goes")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    given = parser.parse_args()
    cases = [case for case in all_cases() if not given.only or any(word in case.name for word in given.only)]
    cases = cases[:: given.every]
    if given.list:
        print("\n".join(case.name for case in cases), len(cases), sep="\n")
        return 0
    import_everything()
    began = time.monotonic()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="faults-world-") as holder:
        world = make_world(Path(holder))
        for case in cases:
            outcome = try_case(case, world)
            outcomes.append(outcome)
            if outcome.failed:
                print(f"{outcome.came_out:9} {outcome.case}\n          {outcome.line}", flush=True)
    print_summary(outcomes, time.monotonic() - began)
    if given.json:
        given.json.write_text(json.dumps([vars(one) for one in outcomes], indent=1))
    failing = [f"{one.came_out:9} {one.case} | {one.line}" for one in outcomes if one.failed]
    if given.failing:
        given.failing.write_text("\n".join(failing) + "\n")
    if given.write:
        from faults.page import write_page

        write_page(given.write, outcomes)
    return int(bool(failing))


def print_summary(outcomes: list[Outcome], seconds: float) -> None:
    """How often what came out, a line a kind."""
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for one in outcomes:
        by_kind[one.case.partition(": ")[0]][one.came_out] += 1
    for kind, counts in by_kind.items():
        print(f"{kind:16} {sum(counts.values()):4}  " + ", ".join(f"{n} {word}" for word, n in counts.most_common()))
    total = Counter(one.came_out for one in outcomes)
    print(f"{'all':16} {len(outcomes):4}  " + ", ".join(f"{n} {word}" for word, n in total.most_common()))
    slow = sorted(outcomes, key=lambda one: -one.seconds)[:5]
    print(f"{seconds:.0f} s; slowest: " + ", ".join(f"{one.case} {one.seconds:.1f} s" for one in slow))


if __name__ == "__main__":
    sys.exit(main())

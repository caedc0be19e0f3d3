"""`python -m qmd_reward`: a self-test of the rubric, or the scores of a file of pairs."""

import argparse
import json
import signal
import sys
from pathlib import Path

from qmd_reward.cases import CASES, Points
from qmd_reward.pairs import read_pairs
from qmd_reward.rubric import score
from qmd_schema.errors import UserError


def score_file(path: Path) -> None:
    """Prints the score of each pair of a file as one JSON line, in the file's order."""
    for pair in read_pairs(path):
        line = json.dumps(score(pair.query, pair.expansion).as_row(), ensure_ascii=False)
        sys.stdout.buffer.write(line.encode() + b"\n")


def self_test() -> bool:
    """Prints a table of the hand-scored cases. Returns whether every score is as expected."""
    width = max(len(case.name) for case in CASES)
    headings = ["format", "diversity", "hyde", "quality", "entity", "think", "total", "max", "percent", "rating"]
    print(f"{'case':{width}}  {'  '.join(f'{heading:>9}' for heading in headings)}")
    failures = 0
    for case in CASES:
        result = score(case.query, case.expansion)
        found = Points(*(getattr(result, field) for field in Points._fields))
        print(f"{case.name:{width}}  {'  '.join(f'{value:>9}' for value in found)}")
        if found != case.expected:
            failures += 1
            print(f"{'  expected':{width}}  {'  '.join(f'{value:>9}' for value in case.expected)}")
    print(f"{len(CASES) - failures} of {len(CASES)} cases as expected.")
    return failures == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m qmd_reward",
        description="Checks the rubric on cases scored by hand and shows their points; or scores a file.",
    )
    parser.add_argument(
        "--file",
        type=Path,
        metavar="PAIRS.jsonl",
        help='score a file of {"query": …, "expansion": …} lines instead; prints one JSON line each',
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if arguments.file is None:
        return 0 if self_test() else 1
    try:
        score_file(arguments.file)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

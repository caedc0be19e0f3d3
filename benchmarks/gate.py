"""How often the gate errs, on simulated models whose true worth is known.

A model against itself, every planted fault in a much better model, and improvements of known size against the power
that the gate promises for them. The answers are written by rule (see evaluator/planted.py); what follows is the gate's
own: QMD's parser, filter and search, the measures, the bootstrap, the guards. Each simulated comparison draws the
judged queries and the answers of both sides anew.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import NormalDist, fmean

from evaluator.config import EvaluatorConfig, GateConfig
from evaluator.evalset import load_eval_set
from evaluator.gate import OVER_REFERENCE, Decision
from evaluator.planted import faults
from evaluator.rehearsal import Rehearsal, broken_guards
from evaluator.retrieval import Retrieval
from evaluator.statistics import POWER
from qmd_schema.config import load_config
from qmd_schema.errors import UserError
from qmd_search.hybrid import cache_folder

USUAL, BETTER = 0.5, 1.0
"""Skills of the deployed model, which surely beats no expansion, and of the one that improvements come from."""
NORMAL = NormalDist()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/evaluator.yaml"), help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=200, help="of a model against itself (default: %(default)s)")
    parser.add_argument("--power-runs", type=int, default=100, help="at each size of gain (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=2000, help="of a decision (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=8, help="answers a query to draw from (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, EvaluatorConfig)
        config = config.model_copy(update={"gate": config.gate.model_copy(update={"resamples": arguments.resamples})})
        eval_set = load_eval_set(config)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    began = time.perf_counter()
    with Retrieval(eval_set, cache_folder(), lambda *_: None) as retrieval:
        rehearsal = Rehearsal(eval_set, retrieval, config, USUAL, BETTER, arguments.samples)
        judged = sum(len(collection.queries) for collection in eval_set.collections)
        print(
            f"{judged} judged queries, {len(eval_set.queries)} eval queries, {len(config.seeds)} seeds; "
            f"the better model gains {rehearsal.full_gain:+.3f} nDCG@10"
        )
        held = [report_against_itself(rehearsal, arguments.runs), report_faults(rehearsal)]
        report_power(rehearsal, arguments.power_runs, config.gate)
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0 if all(held) else 1


def report_against_itself(rehearsal: Rehearsal, runs: int) -> bool:
    passed = sum(rehearsal.compare(0, run).outcome == "PASS" for run in range(runs))
    print(f"against itself: {passed} of {runs} pass ({passed / runs:.1%}; at most 5% may)", flush=True)
    return passed <= 0.05 * runs


def report_faults(rehearsal: Rehearsal) -> bool:
    print("\n| planted fault | verdict | broken guards |\n|---|---|---|")
    held = True
    for name, fault in {"none": None, **faults(rehearsal.eval_set.collections[0].name)}.items():
        decision = rehearsal.compare_better(fault)
        print(f"| {name} | {decision.outcome} | {', '.join(broken_guards(decision))} |", flush=True)
        held = held and decision.outcome == ("FAIL" if fault else "PASS")
    return held


def report_power(rehearsal: Rehearsal, runs: int, config: GateConfig) -> None:
    """Prints how often true gains of three sizes pass, beside the probability by the normal approximation.

    That is the probability that the measured mean reaches the minimum effect and its lower bound 0. Of a gain of just
    the minimum effect a half pass at most, since its mean falls below that as often as above.
    """
    bound, power = NORMAL.inv_cdf(config.confidence), NORMAL.inv_cdf(POWER)

    def compare(gain: float, runs: int) -> tuple[list[Decision], float]:
        """Comparisons with a candidate of this true gain, and the standard error that they state."""
        decisions = [rehearsal.compare(gain / rehearsal.full_gain, run) for run in range(runs)]
        return decisions, fmean(decision.detectable_gain for decision in decisions) / (bound + power)

    _, error = compare(config.minimum_effect, 10)
    threshold = max(config.minimum_effect, bound * error)
    columns = ("true gain in nDCG@10", "measured, mean", "PASS", "INCONCLUSIVE", "FAIL", "PASS promised")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for gain in (config.minimum_effect, threshold + power * error, threshold + 2 * power * error):
        decisions, error = compare(gain, runs)
        outcomes = [decision.outcome for decision in decisions]
        shares = [f"{outcomes.count(outcome) / runs:.0%}" for outcome in ("PASS", "INCONCLUSIVE", "FAIL")]
        promised = NORMAL.cdf((gain - max(config.minimum_effect, bound * error)) / error)
        measured = fmean(decision.gains[OVER_REFERENCE].mean for decision in decisions)
        print(f"| {gain:.4f} | {measured:.4f} | {' | '.join(shares)} | {promised:.0%} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

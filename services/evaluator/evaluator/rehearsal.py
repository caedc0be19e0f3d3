"""The gate rehearsed: comparisons of simulated models, from the text of their answers to the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean

from evaluator.config import EvaluatorConfig
from evaluator.evalset import EvalSet
from evaluator.gate import Decision, decide
from evaluator.measures import Measured, by_source, measure_model, measure_none, side_values
from evaluator.models import Model
from evaluator.paired import GateInputs
from evaluator.planted import Fault, write_answers
from evaluator.retrieval import Retrieval

_MODEL = Model(Path("/simulated"), "0" * 64, None, frozenset(), weight_bytes=270_000_000, cache_bytes=47_185_920)


class Rehearsal:
    """Two simulated models, each measured several times on an eval set, and comparisons drawn from these."""

    def __init__(
        self,
        eval_set: EvalSet,
        retrieval: Retrieval,
        config: EvaluatorConfig,
        usual: float,
        better: float,
        samples: int,
    ) -> None:
        """usual, better: skills of the deployed model and of the one that improvements come from.

        samples: answers a query that comparisons draw from.
        """
        self.eval_set = eval_set
        self._retrieval = retrieval
        self._config = config
        self._better = better
        self._none = measure_none(eval_set, retrieval)["ndcg@10"]
        self._usual_measured = [self._measure(usual, seed) for seed in range(samples)]
        self._better_measured = [self._measure(better, seed) for seed in range(samples)]

    @property
    def full_gain(self) -> float:
        """In nDCG@10, of the better model over the usual one."""
        usual, better = (
            fmean(
                fmean(values.values())
                for measured in side
                for values in by_source(measured.by_query["ndcg@10"]).values()
            )
            for side in (self._usual_measured, self._better_measured)
        )
        return better - usual

    def compare(self, share: float, run: int) -> Decision:
        """A candidate that gains, in expectation, `share` of the full gain over the deployed model.

        Judged queries and answers are drawn anew in each run.
        """
        random = Random(f"{share} {run}")
        queries = self._redraw(random)
        deployed = self._resample(self._usual_measured, queries, random)
        candidate = self._resample(self._usual_measured, queries, random, self._better_measured, share)
        return self._decide(candidate, deployed, queries)

    def compare_better(self, fault: Fault | None) -> Decision:
        """The better model, with a fault or none, against the deployed one, on the eval set as it is."""
        random = Random(0)
        queries = {key: key for key in self.eval_set.texts}
        deployed = self._resample(self._usual_measured, queries, random)
        if fault is None:
            return self._decide(self._resample(self._better_measured, queries, random), deployed, queries)
        planted = [self._measure(self._better, seed, fault) for seed in range(len(self._config.seeds))]
        candidate = replace(
            self._resample(planted, queries, random),
            latencies=[fault.latency],
            weight_bytes=round(_MODEL.weight_bytes * fault.size),
        )
        return self._decide(candidate, deployed, queries)

    def _measure(self, skill: float, seed: int, fault: Fault | None = None) -> Measured:
        answers = write_answers(self.eval_set, skill, seed)
        answers = fault.plant(answers, self.eval_set) if fault else answers
        config = self._config.model_copy(update={"seeds": [seed], "ungrammared_seeds": 1})
        return measure_model(_MODEL, answers, [1.0], self.eval_set, self._retrieval, config)

    def _redraw(self, random: Random) -> dict[str, str]:
        """New keys of queries that stand for those in the set: the judged ones drawn anew from each collection."""
        queries = {key: key for key in self.eval_set.eval_texts}
        for collection in self.eval_set.collections:
            ids = list(collection.queries)
            for number, id_ in enumerate(random.choices(ids, k=len(ids))):
                queries[f"{collection.name}/{number}"] = f"{collection.name}/{id_}"
        return queries

    def _resample(
        self,
        usual: Sequence[Measured],
        queries: Mapping[str, str],
        random: Random,
        better: Sequence[Measured] = (),
        share: float = 0.0,
    ) -> Measured:
        """A model that answers as `better` does in a share of its answers and else as `usual`, drawn anew."""
        seeds = self._config.seeds
        drawn = {new: [random.choice(better if random.random() < share else usual) for _ in seeds] for new in queries}
        by_query: dict[str, dict[str, float]] = {name: {} for name in usual[0].by_query}
        valid: dict[str, list[bool]] = {}
        for new, old in queries.items():
            for name, values in usual[0].by_query.items():
                if old in values:
                    by_query[name][new] = fmean(measured.by_query[name][old] for measured in drawn[new])
            if old in (usual[0].valid or {}):
                valid[new] = [flag for measured in drawn[new] for flag in (measured.valid or {})[old]]
        return replace(usual[0], by_query=by_query, valid=valid)

    def _decide(self, candidate: Measured, deployed: Measured, queries: Mapping[str, str]) -> Decision:
        none = {new: self._none[old] for new, old in queries.items() if old in self._none}
        inputs = GateInputs(
            side_values(candidate), side_values(deployed), by_source(none), self.eval_set.slices, first_deployment=False
        )
        return decide(inputs, self._config.gate)


def broken_guards(decision: Decision) -> list[str]:
    return [guard.name for guard in decision.guards if guard.decides and not guard.held]

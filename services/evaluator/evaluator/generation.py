"""Answers of a model to the eval set, through QMD's own decode, kept as they come."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from evaluator.config import EvaluatorConfig
from evaluator.evalset import EvalSet, spread
from evaluator.models import Engine, Model
from evaluator.store import Answer, Store
from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import Completion, InferenceClient
from qmd_schema.contract import TURN_END, TURN_START, prompt_text
from qmd_schema.errors import ArtifactError

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""

LEAKS = (TURN_START, TURN_END, "<|endoftext|>", "<think>", "</think>")

_BATCHES_AT_ONCE = 2
"""While the last answers of one batch are written, the next one fills the server."""


@dataclass(frozen=True)
class _Batch:
    """Queries that are asked together. Always the same ones in the same order, since the seed goes by the place."""

    seed: int
    grammar: bool
    queries: tuple[str, ...]


class Generator:
    """Asks the inference services on behalf of one session, and keeps what they answer in the store."""

    def __init__(
        self,
        clients: Mapping[Engine, InferenceClient],
        store: Store,
        session: str,
        eval_set: EvalSet,
        config: EvaluatorConfig,
    ) -> None:
        """clients: of the service that runs each engine."""
        self._clients = clients
        self._store = store
        self._session = session
        self._eval_set = eval_set
        self._config = config

    def answers(
        self, model: Model, seeds: Sequence[int], with_free: bool, label: str, on_progress: OnProgress
    ) -> list[Answer]:
        """One answer for every query and seed; what the session already has is not asked for again.

        with_free: also without grammar, for the eval queries. label: names the model in the progress.
        Raises ServiceError when the inference service fails, ArtifactError when it cannot load the model.
        """
        batches = self._batches(seeds, with_free)
        known = {(a.seed, a.grammar, a.query) for a in self._store.answers(self._session, model.sha256)}
        pending = [b for b in batches if any((b.seed, b.grammar, query) not in known for query in b.queries)]
        if pending:
            self._load(model)
            self._generate(model, batches, pending, f"answers of the {label}", on_progress)
        wanted = {(b.seed, b.grammar, query) for b in batches for query in b.queries}
        return [a for a in self._store.answers(self._session, model.sha256) if (a.seed, a.grammar, a.query) in wanted]

    def latencies(self, model: Model, label: str, on_progress: OnProgress) -> list[float]:
        """Seconds an expansion, asked one at a time, for a fixed choice of eval queries. Raises as `answers`."""
        queries = spread(list(self._eval_set.eval_texts))[: self._config.latency_queries]
        missing = [query for query in queries if query not in self._store.latencies(self._session, model.sha256)]
        if missing:
            self._load(model)
            self._ask(model, _Batch(self._config.seeds[0], True, (missing[0],)))
        for done, query in enumerate(missing, start=len(queries) - len(missing) + 1):
            begun = time.perf_counter()
            self._ask(model, _Batch(self._config.seeds[0], True, (query,)))
            self._store.add_latency(self._session, model.sha256, query, time.perf_counter() - begun)
            on_progress(f"latency of the {label}", done, len(queries))
        measured = self._store.latencies(self._session, model.sha256)
        return [measured[query] for query in queries]

    def _batches(self, seeds: Sequence[int], with_free: bool) -> list[_Batch]:
        size = self._config.batch_answers
        asked = [(seed, True, list(self._eval_set.texts)) for seed in seeds]
        if with_free:
            free_seeds = seeds[: self._config.ungrammared_seeds]
            asked += [(seed, False, list(self._eval_set.eval_texts)) for seed in free_seeds]
        return [
            _Batch(seed, grammar, tuple(keys[start : start + size]))
            for seed, grammar, keys in asked
            for start in range(0, len(keys), size)
        ]

    def _generate(
        self, model: Model, batches: list[_Batch], pending: list[_Batch], task: str, on_progress: OnProgress
    ) -> None:
        total = sum(len(batch.queries) for batch in batches)
        done = {batch: 0 if batch in pending else len(batch.queries) for batch in batches}
        lock = Lock()

        def run(batch: _Batch) -> None:
            def on_done(finished: int) -> None:
                with lock:
                    done[batch] = finished
                    on_progress(task, sum(done.values()), total)

            completions = self._ask(model, batch, on_done)
            answers = [_answer(model, batch, *pair) for pair in zip(batch.queries, completions, strict=True)]
            self._store.add_answers(self._session, model.sha256, answers)

        on_progress(task, sum(done.values()), total)
        threads = ThreadPoolExecutor(_BATCHES_AT_ONCE)
        try:
            for finished in [threads.submit(run, batch) for batch in pending]:
                finished.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def _ask(self, model: Model, batch: _Batch, on_done: Callable[[int], None] | None = None) -> Sequence[Completion]:
        prompts = [prompt_text(self._eval_set.texts[query], model.bos) for query in batch.queries]
        answered = self._clients[model.engine].generate(
            prompts, grammar=batch.grammar, seed=batch.seed, policy=model.version, on_done=on_done
        )
        return [completions[0] for completions in answered]

    def _load(self, model: Model) -> None:
        client = self._clients[model.engine]
        if client.policy() == model.version:
            return
        try:
            client.load_policy(model.version, model.path)
        except ServiceError as error:
            client.policy()  # raises where the service is away, so that only the model is left to blame
            raise ArtifactError(f"{model.path}: the inference service does not load it: {error}") from error


def _answer(model: Model, batch: _Batch, query: str, completion: Completion) -> Answer:
    ended = completion.finish_reason == "stop"
    inside = completion.token_ids[:-1] if ended else completion.token_ids
    leaked = any(mark in completion.text for mark in LEAKS) or not model.special_ids.isdisjoint(inside)
    return Answer(query, batch.seed, batch.grammar, completion.text, len(completion.token_ids), ended, leaked)

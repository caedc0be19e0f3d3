"""The whole of an evaluation: generate, measure, decide, keep, write down."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.config import EvaluatorConfig
from evaluator.evalset import EvalSet, load_eval_set
from evaluator.gate import decide
from evaluator.generation import Generator, OnProgress
from evaluator.measures import (
    by_source,
    measure_model,
    measure_none,
    model_figures,
    retrieval_figures,
    side_values,
)
from evaluator.models import Engine, Model, open_model
from evaluator.paired import GateInputs
from evaluator.report import Side, render_report
from evaluator.retrieval import Retrieval
from evaluator.store import Answer, Store
from evaluator.verdict import make_verdict, question
from qmd_rpc.inference import InferenceClient
from qmd_schema.artifacts import sha256_json, write_text_atomically
from qmd_schema.verdicts import ModelIdentity, SignedVerdict, load_signing_key, sign

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Everything that one evaluation measures with, open for its time."""

    eval_set: EvalSet
    config: EvaluatorConfig
    generator: Generator
    retrieval: Retrieval
    on_progress: OnProgress

    def measure(self, model: Model, label: str, is_base: bool = False) -> Side:
        """label: names the model in the progress.

        is_base: what a base model does without grammar, or how long it takes, decides nothing and costs minutes, as
        it seldom stops by itself; so it is not measured, and the rest with fewer seeds where the config says so.
        """
        config = self.config.for_base() if is_base else self.config
        answers = self.generator.answers(model, config.seeds, not is_base, label, self.on_progress)
        latencies = None if is_base else self.generator.latencies(model, label, self.on_progress)
        self.on_progress(f"measures of the {label}", 0, 1)
        measured = measure_model(model, answers, latencies, self.eval_set, self.retrieval, config)
        self.on_progress(f"measures of the {label}", 1, 1)
        figures = model_figures(measured, self.eval_set.slices, self.config.gate.confidence)
        return Side(label, model.engine, answers, measured, figures)

    def measure_none(self) -> dict[str, dict[str, float]]:
        return measure_none(self.eval_set, self.retrieval)


class Evaluator:
    """Measures and compares models, one request at a time.

    Its calls raise UserError for bad input, ServiceError when the inference service fails and IncompleteError where
    measurements are missing; then there are neither figures nor a verdict, and the same call goes on where it was.
    """

    def __init__(self, config: EvaluatorConfig) -> None:
        """Raises UserError for a store or a signing key that is not usable."""
        self._config = config
        self.store = Store(config.store)
        self._key = load_signing_key(config.signing_key)

    def evaluate(self, path: Path, on_progress: OnProgress) -> dict[str, Any]:
        """The figures of one model and of searches without expansion."""
        model = open_model(path)
        identity = ModelIdentity(reference=str(path), sha256=model.sha256)
        eval_set = load_eval_set(self._config)
        session_id, id_ = self._ids([identity], eval_set)
        kept = self.store.evaluation(id_)
        if kept is not None:
            logger.info("evaluation %s: answered from the store", id_)
            return kept
        with self._session(session_id, [model], eval_set, on_progress) as session:
            side = session.measure(model, "model")
            none = session.measure_none()
        result = {
            "model": identity.model_dump(),
            "engine": model.engine,
            "figures": {"model": side.figures, "none": retrieval_figures(none)},
            "queries": {collection.name: len(collection.queries) for collection in eval_set.collections}
            | {"queries": len(eval_set.queries)},
            "seeds": self._config.seeds,
            "data_sha256": eval_set.sha256,
        }
        self.store.add_evaluation(id_, result)
        return result

    def compare(
        self, candidate: Path, reference: Path, deployed_revision: str | None, output: Path, on_progress: OnProgress
    ) -> SignedVerdict:
        """Measures both sides in one session and decides; writes verdict.json, last, and what explains it to `output`.

        deployed_revision: of the reference in the registry; None where it is the base model. A comparison that has its
        verdict already answers with that one, and a side that the session has measured is not asked again.
        """
        models = {"candidate": open_model(candidate), "reference": open_model(reference)}
        identities = (
            ModelIdentity(reference=str(candidate), sha256=models["candidate"].sha256),
            ModelIdentity(reference=str(reference), sha256=models["reference"].sha256, revision=deployed_revision),
        )
        eval_set = load_eval_set(self._config)
        session_id, id_ = self._ids(identities, eval_set)
        logger.info("comparison %s: %s against %s", id_, candidate, reference)
        kept = self.store.comparison(id_)
        if kept is None:
            with self._session(session_id, list(models.values()), eval_set, on_progress) as session:
                kept = self._decide(id_, session, models, identities)
        signed, report = kept
        answers = {name: self.store.answers(session_id, model.sha256) for name, model in models.items()}
        _write(output, signed, report, answers, eval_set)
        on_progress("report", 1, 1)
        logger.info("comparison %s: %s: %s", id_, signed.verdict.outcome, signed.verdict.reasons[0])
        return signed

    def _decide(
        self, id_: str, session: Session, models: Mapping[str, Model], identities: tuple[ModelIdentity, ModelIdentity]
    ) -> tuple[SignedVerdict, str]:
        """The verdict and the page that explains it, both kept in the store."""
        is_first = identities[1].revision is None
        sides = {
            "candidate": session.measure(models["candidate"], "candidate"),
            "reference": session.measure(
                models["reference"], "base model" if is_first else "deployed model", is_base=is_first
            ),
        }
        none = session.measure_none()
        decision = decide(
            GateInputs(
                candidate=side_values(sides["candidate"].measured),
                reference=side_values(sides["reference"].measured),
                none=by_source(none["ndcg@10"]),
                slices=session.eval_set.slices,
                first_deployment=is_first,
            ),
            self._config.gate,
        )
        figures = {name: side.figures for name, side in sides.items()} | {"none": retrieval_figures(none)}
        data = session.eval_set.sha256
        verdict = make_verdict(id_, *identities, decision, figures, data, self._config)
        signed = sign(verdict, self._key)
        session.on_progress("report", 0, 1)
        report = render_report(
            signed, decision, sides, none["ndcg@10"], session.eval_set, session.retrieval, self._config
        )
        self.store.add_verdict(signed, report)
        return signed, report

    def _ids(self, models: Sequence[ModelIdentity], eval_set: EvalSet) -> tuple[str, str]:
        """Of the session that measures any model, and of what it is asked about these; that ends with the session."""
        max_age = self._config.session_hours * 3600
        session = self.store.session(question([], eval_set.sha256, self._config), max_age)
        about_models = sha256_json([session, question(models, eval_set.sha256, self._config)])
        return session, self.store.session(about_models, max_age)

    @contextmanager
    def _session(
        self, id_: str, models: Sequence[Model], eval_set: EvalSet, on_progress: OnProgress
    ) -> Iterator[Session]:
        """Raises ServiceError at once where an inference service that is needed is away."""
        config = self._config
        addresses: dict[Engine, str] = {
            "vLLM": config.inference_address,
            "llama.cpp": config.gguf_inference_address,
        }
        with ExitStack() as stack:
            clients = {
                engine: stack.enter_context(
                    InferenceClient(address, config.inference_seconds, config.inference_patience)
                )
                for engine, address in addresses.items()
                if any(model.engine == engine for model in models)
            }
            for client in clients.values():
                client.policy()
            retrieval = stack.enter_context(Retrieval(eval_set, config.search_cache, on_progress))
            generator = Generator(clients, self.store, id_, eval_set, config)
            yield Session(eval_set, config, generator, retrieval, on_progress)


def _write(
    output: Path, signed: SignedVerdict, report: str, answers: Mapping[str, Sequence[Answer]], eval_set: EvalSet
) -> None:
    """Writes each file whole or not at all; the verdict last, so that where it is, all is."""
    samples = [
        {
            "side": name,
            "query": eval_set.texts[answer.query],
            "key": answer.query,
            "seed": answer.seed,
            "grammar": answer.grammar,
            "answer": answer.text,
            "tokens": answer.tokens,
            "ended": answer.ended,
        }
        for name, given in answers.items()
        for answer in given
    ]
    lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    write_text_atomically(output / "samples.jsonl", lines)
    write_text_atomically(output / "figures.json", json.dumps(signed.verdict.figures, indent=2) + "\n")
    write_text_atomically(output / "report.html", report)
    write_text_atomically(output / "verdict.json", signed.model_dump_json(indent=2) + "\n")

"""Fine-tuning on what the search gains most from: `rft` on a model's own best answers, `distill` on better ones."""

import logging
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from qmd_rpc.inference import InferenceClient
from qmd_rpc.reward import RewardClient
from qmd_schema.artifacts import folder_written_atomically, read_manifest, sha256_file, sha256_folder, write_manifest
from qmd_schema.contract import QMD_DECODE, serve
from qmd_schema.errors import DataError
from qmd_schema.expansion import Expansion, Kind, Line, keeps_rules, parse, render, split_only
from qmd_search.collections import load_documents
from trainer.base_models import resolve_model
from trainer.config import ImitationConfig, SftConfig
from trainer.dataset import Row, eos_token, load_rows, write_rows
from trainer.grpo_queries import TrainingQuery, check_searched, load_judged_queries
from trainer.launch import PROGRESS_NAME, record_progress
from trainer.lex_teacher import Lesson, Lines, Rarity, teach
from trainer.services import open_services
from trainer.sft import run_sft

Way = Literal["rft", "distill"]

TARGETS_NAME = "targets"
COMPOSED_KINDS: tuple[Kind, ...] = ("hyde", "vec")
"""Of which a composed answer has one sampled line each."""

_SEARCHES_AT_ONCE = 2_000
"""Between two lines of progress."""

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]


class Target(NamedTuple):
    """An answer to imitate."""

    query: TrainingQuery
    answer: str
    gain: float
    """In nDCG@10, over no expansion."""


class Answered(NamedTuple):
    """A judged query with those of its sampled answers that keep every rule."""

    query: TrainingQuery
    answers: list[str]


def run_imitation(way: Way, config: ImitationConfig, data: Path, model: str, output: Path) -> None:
    """Writes the rows to learn from into `output/targets`, then trains an adapter on them into `output/adapter`.

    data: folder that `prepare` wrote; model: reference of a merged model, which the inference service is told to load.
    A killed stage goes on. Raises UserError for bad input, ServiceError when a service stays away, StageFailedError
    when training failed.
    """
    folder = resolve_model(model)
    targets = output / TARGETS_NAME
    if read_manifest(targets) is None:
        output.mkdir(parents=True, exist_ok=True)
        _write_targets(way, config, data, folder, targets)
    training = SftConfig(model=str(folder), prepare=config.prepare, **config.training.model_dump())
    run_sft(training, targets, output)


def _write_targets(way: Way, config: ImitationConfig, data: Path, model: Path, folder: Path) -> None:
    started = time.monotonic()
    progress = folder.parent / PROGRESS_NAME

    def on_progress(task: str, done: int, total: int) -> None:
        record_progress(progress, task, done, total, {})

    queries = load_judged_queries(config.collections, config.prepare, model)
    draw = random.Random(config.seed)
    queries = draw.sample(queries, min(len(queries), config.queries or len(queries)))
    with open_services(config) as (inference, reward):
        check_searched(config.collections, reward)
        search = Search(reward, on_progress)
        answered = ask(config, inference, queries, model, on_progress)
        targets = best_answers(answered, search, config) if way == "rft" else composed(answered, search, config)
    if len(targets) < 2:
        raise DataError(f"{len(targets)} of {len(queries)} queries gave an answer that is worth imitating.")
    eos = eos_token(model)
    rows = [Row(t.query.query, t.query.collection or "", t.query.prompt, t.answer + eos) for t in targets]
    held_out = max(1, round(len(rows) * config.validation_share))
    known = load_rows(data, "train")
    rehearsed = draw.sample(known, min(len(known), round(config.rehearsal * (len(rows) - held_out))))
    train = rows[held_out:] + rehearsed
    draw.shuffle(train)
    with folder_written_atomically(folder) as target:
        write_rows(target, "train", train)
        write_rows(target, "val", rows[:held_out])
        write_manifest(
            target,
            way,
            config,
            inputs={"model": sha256_folder(model), "train": sha256_file(data / "train.jsonl")}
            | {str(each.path): sha256_file(each.path / "queries.jsonl") for each in config.collections},
            seconds=time.monotonic() - started,
            packages=["qmd-schema", "qmd-trainer"],
            seed=config.seed,
            figures={
                "queries": len(queries),
                "answers_that_keep_the_rules": sum(len(each.answers) for each in answered)
                / (len(queries) * config.samples),
                "targets": len(targets),
                "rehearsed": len(rehearsed),
                "mean_gain": statistics.fmean(target.gain for target in targets),
            },
        )


def ask(
    config: ImitationConfig,
    client: InferenceClient,
    queries: Sequence[TrainingQuery],
    model: Path,
    on_progress: OnProgress,
) -> list[Answered]:
    """Samples answers as QMD samples them, without its grammar, and keeps those that keep every rule."""
    version = f"imitated-{sha256_folder(model)[:12]}"
    if client.policy() != version:
        client.load_policy(version, model)
    answers = client.generate(
        [query.prompt for query in queries],
        n=config.samples,
        decode=QMD_DECODE,
        max_tokens=config.training.max_length,
        grammar=False,
        seed=config.seed,
        policy=version,
        on_done=lambda done: on_progress("answers", done, len(queries)),
    )
    return [
        Answered(query, [answer.text for answer in samples if keeps_rules(query.query, answer.text)])
        for query, samples in zip(queries, answers, strict=True)
    ]


class Search:
    """Gains of expansions of judged queries, by the reward service."""

    def __init__(self, client: RewardClient, on_progress: OnProgress) -> None:
        self._client = client
        self._on_progress = on_progress

    def gains(self, asked: Sequence[tuple[TrainingQuery, Lines]], task: str) -> list[float]:
        """The gain of each in nDCG@10 over no expansion, in their order. Raises ServiceError."""
        gains = [0.0] * len(asked)
        places: dict[str, list[int]] = defaultdict(list)
        for place, (query, lines) in enumerate(asked):
            if lines:
                places[query.collection or ""].append(place)
        total, done = sum(map(len, places.values())), 0
        for collection, own in places.items():
            for start in range(0, len(own), _SEARCHES_AT_ONCE):
                part = own[start : start + _SEARCHES_AT_ONCE]
                pairs = [(asked[place][0].query, _text(asked[place][1])) for place in part]
                for place, score in zip(part, self._client.score_retrievals(pairs, collection), strict=True):
                    gains[place] = score.with_expansion.ndcg_at_10 - score.without_expansion.ndcg_at_10
                done += len(part)
                self._on_progress(task, done, total)
        return gains


def best_answers(answered: Sequence[Answered], search: Search, config: ImitationConfig) -> list[Target]:
    """Rejection sampling: each query's best answer, where it gains and is better than the mean of its answers."""
    asked = [(each.query, parse(answer).expansion.lines) for each in answered for answer in each.answers]
    gains = iter(search.gains(asked, "searches"))
    targets = []
    for query, answers in answered:
        own = {answer: next(gains) for answer in answers}
        best = max(own, key=own.__getitem__, default=None)
        if best and own[best] >= max(0.0, statistics.fmean(own.values())) + config.minimum_gain:
            targets.append(Target(query, best, own[best]))
    return targets


def composed(answered: Sequence[Answered], search: Search, config: ImitationConfig) -> list[Target]:
    """Lex lines by search, beside the sampled hyde line and vec line that each gain most by themselves."""
    taught = [each for each in answered if each.answers and split_only(each.query.query)[1] is None]
    samples = [[_searched(each.query.query, answer) for answer in each.answers] for each in taught]
    others = [list(dict.fromkeys(line for lines in each for line in lines)) for each in samples]
    asked = [(each.query, (line,)) for each, lines in zip(taught, others, strict=True) for line in lines]
    alone = iter(search.gains(asked, "hyde and vec lines"))
    worth = [{line: next(alone) for line in lines} for lines in others]
    best = [tuple(line for kind in COMPOSED_KINDS for line in _best(own, kind)) for own in worth]
    rarities = {each.name: Rarity(load_documents(each.path).documents) for each in config.collections}
    lessons = [
        Lesson(each.query.query, list(dict.fromkeys([(), chosen, *own])))
        for each, chosen, own in zip(taught, best, samples, strict=True)
    ]
    lex = teach(
        lessons,
        [rarities[each.query.collection or ""] for each in taught],
        lambda tried: search.gains([(taught[number].query, lines) for number, lines in tried], "lex lines"),
        config.gain_cap,
        config.rarity_weight,
    )
    written = [
        (each.query, (*own, *chosen))
        for each, own, chosen in zip(taught, lex, best, strict=True)
        if own and len(chosen) == len(COMPOSED_KINDS)
    ]
    gains = search.gains(written, "composed answers")
    return [
        Target(query, render(query.query, Expansion(lines)), gain)
        for (query, lines), gain in zip(written, gains, strict=True)
        if gain >= 0
    ]


def _searched(query: str, answer: str) -> Lines:
    """The hyde and vec lines of an answer that QMD searches with."""
    return tuple(line for line in serve(query, answer).lines if line.kind != "lex")


def _best(worth: Mapping[Line, float], kind: Kind) -> Lines:
    """The line of a kind that is worth most, the first of equals; nothing where there is none."""
    own = [line for line in worth if line.kind == kind]
    return (max(own, key=worth.__getitem__),) if own else ()


def _text(lines: Lines) -> str:
    return "".join(f"{line.kind}: {line.text}\n" for line in lines)

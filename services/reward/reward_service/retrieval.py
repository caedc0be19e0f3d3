"""The search half of the retrieval reward: runs expansions through QMD's search of judged collections.

Runs in a worker process of its own, which holds the indexes and the embedder and alone imports them.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from qmd_reward.retrieval import Quality, quality, reward
from qmd_rpc.scores import kind_number
from qmd_rpc.v1 import reward_pb2
from qmd_schema.config import CollectionConfig
from qmd_schema.contract import keeps
from qmd_schema.expansion import Line, parse, split_only
from qmd_search.collections import Collection, load_collection
from qmd_search.fusion import EXPANSION_WEIGHT, ORIGINAL_WEIGHT, RankedList, fused_ids
from qmd_search.hybrid import HybridSearch, cache_folder
from qmd_search.vectors import Embedder, TextEmbedder
from reward_service.retrieval_queue import Answer, Job, NotJudgedError

_MOST_QUERIES = 20_000
"""Embeddings kept, 1.5 KiB each."""
_MOST_LISTS = 8_192
"""Results of single lines kept for each collection."""
_MOST_WORDS = 32
"""Of a lex line that is searched for. The time of a search grows with their square; so many are in no document."""
_WORD = re.compile(r"[\u2e80-\ufaff]|\w+")
"""A word, or a character of a script that is searched by characters."""


class JudgedSearch:
    """The search of one collection, with what it knows of queries and lines it has met."""

    def __init__(self, collection: Collection, split: str | None, embedder: TextEmbedder, cache: Path | None) -> None:
        self.collection = collection
        self.split = split
        self._search = HybridSearch.open(collection, embedder, cache)
        self._judgements: dict[str, dict[str, int]] = {}
        for id_, text in collection.queries.items():
            self._judgements.setdefault(text, {}).update(collection.qrels[id_])
        self._lexical = lru_cache(_MOST_LISTS)(self._search.lexical)
        self._semantic = lru_cache(_MOST_LISTS)(self._search.semantic)
        self._is_strong = lru_cache(_MOST_LISTS)(self._search.is_strong_signal)

    def texts(self, job: Job) -> list[str]:
        """What has to be embedded for a job."""
        query, _ = split_only(job.query)
        lines = parse(job.expansion).expansion.lines
        return [query, *(line.text for line in lines if line.kind != "lex" and _is_searched(query, line))]

    def score(self, job: Job) -> reward_pb2.RetrievalScore:
        """Raises NotJudgedError."""
        query, _ = split_only(job.query)
        if query not in self._judgements:
            raise NotJudgedError(f"query: is none of the {len(self._judgements):,} judged in {job.collection}")
        judgements = self._judgements[query]
        lines = parse(job.expansion).expansion.lines
        searched = [_is_searched(query, line) for line in lines]
        found = [self._find(line) if use else [] for line, use in zip(lines, searched, strict=True)]
        is_strong = self._is_strong(query)

        def measured(uses: Sequence[bool]) -> Quality:
            used = [(line, ids) for line, ids, use in zip(lines, found, uses, strict=True) if use]
            return quality(fused_ids(self._lists(query, used)), judgements)

        plain = measured([False] * len(lines))
        expanded = measured(searched) if any(searched) and not is_strong else None
        without: list[Quality | None] = [None] * len(lines)
        if expanded is not None:
            for index in range(len(lines)):
                if not found[index]:
                    without[index] = expanded if searched[index] else None
                elif searched[index]:
                    without[index] = measured([use and other != index for other, use in enumerate(searched)])
        result = reward(plain, expanded, without)
        return reward_pb2.RetrievalScore(
            gain=result.gain,
            without_expansion=_quality_message(plain),
            with_expansion=_quality_message(expanded or plain),
            lines=[
                _line_message(line, use, credit, ids, judgements)
                for line, use, credit, ids in zip(lines, searched, result.credits, found, strict=True)
            ],
            is_fallback=not any(keeps(query, line.text) for line in lines),
            is_strong_signal=is_strong,
        )

    def _find(self, line: Line) -> list[str]:
        if line.kind != "lex":
            return [id_ for id_, _ in self._semantic(line.text)]
        if len(_WORD.findall(line.text)) > _MOST_WORDS:
            return []
        return [id_ for id_, _ in self._lexical(line.text)]

    def _lists(self, query: str, used: Sequence[tuple[Line, list[str]]]) -> list[RankedList]:
        """In the order in which the search fuses them, which decides between documents of equal score."""
        lexical, semantic = ([id_ for id_, _ in find(query)] for find in (self._lexical, self._semantic))
        return [
            RankedList("query fts", lexical, ORIGINAL_WEIGHT),
            *(RankedList("lex", ids, EXPANSION_WEIGHT) for line, ids in used if line.kind == "lex"),
            RankedList("query vec", semantic, ORIGINAL_WEIGHT),
            *(RankedList(line.kind, ids, EXPANSION_WEIGHT) for line, ids in used if line.kind != "lex"),
        ]


def _is_searched(query: str, line: Line) -> bool:
    return keeps(query, line.text) and line.text != query


def _quality_message(value: Quality) -> reward_pb2.RetrievalQuality:
    return reward_pb2.RetrievalQuality(ndcg_at_10=value.ndcg, recall_at_20=value.recall)


def _line_message(
    line: Line, is_searched: bool, credit: float, ids: Sequence[str], judgements: dict[str, int]
) -> reward_pb2.LineScore:
    return reward_pb2.LineScore(
        kind=kind_number(line.kind),
        text=line.text,
        is_dropped=not is_searched,
        credit=credit,
        found=len(ids),
        relevant=[
            reward_pb2.FoundDocument(id=id_, rank=rank, relevance=judgements[id_])
            for rank, id_ in enumerate(ids, start=1)
            if judgements.get(id_)
        ],
    )


_searches: dict[str, JudgedSearch] = {}
_embedder = Embedder(most_queries=_MOST_QUERIES)


def describe(sources: Sequence[CollectionConfig], cache: Path | None) -> bytes:
    """Loads the collections; indexes those that are new to the cache, which may take minutes.

    Returns a serialized ListCollectionsResponse. Raises UserError for a collection that cannot be read.
    """
    _load(sources, cache)
    _embedder.embed_queries(sorted(_searches))  # the model takes seconds to load: before the first call, not in it
    described = [
        reward_pb2.Collection(
            name=name,
            documents=len(search.collection.documents),
            queries=len(search.collection.queries),
            split=search.split or "",
        )
        for name, search in sorted(_searches.items())
    ]
    return reward_pb2.ListCollectionsResponse(collections=described).SerializeToString()


def score_jobs(sources: Sequence[CollectionConfig], cache: Path | None, jobs: Sequence[Job]) -> list[Answer]:
    """Measures expansions, whose new texts are embedded together. A worker that is new loads `sources` first."""
    _load(sources, cache)
    _embedder.embed_queries(
        [text for job in jobs if (search := _searches.get(job.collection)) for text in search.texts(job)]
    )
    return [_score(job) for job in jobs]


def _score(job: Job) -> Answer:
    try:
        if job.collection not in _searches:
            raise NotJudgedError(f"collection: is none of those loaded: {', '.join(_searches)}")
        score = _searches[job.collection].score(job)
    except NotJudgedError as error:
        return error
    return reward_pb2.ScoreRetrievalResponse(score=score).SerializeToString()


def _load(sources: Sequence[CollectionConfig], cache: Path | None) -> None:
    for source in sources:
        if source.name not in _searches:
            collection = load_collection(source.path, source.split)
            _searches[source.name] = JudgedSearch(collection, source.split, _embedder, cache or cache_folder())

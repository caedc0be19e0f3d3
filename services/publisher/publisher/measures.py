"""What the answers of a publication's files are worth.

`python -m publisher.measures COLLECTION CACHE QUESTIONS REPORT…` prints one JSON object a report: valid, rubric, gain.
It is a process of its own where a collection is searched, since the search's embedder is large.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from publisher.parity import Worth, is_valid, mean_worth
from publisher.probe import Report
from publisher.questions import Question, Questions
from qmd_reward.retrieval import quality
from qmd_reward.rubric import score
from qmd_schema.config import CollectionConfig
from qmd_schema.contract import serve
from qmd_schema.expansion import Line
from qmd_search.collections import Collection, load_collection
from qmd_search.hybrid import HybridSearch
from qmd_search.vectors import Embedder


class Judge:
    """Searches the collection that answers are measured on."""

    def __init__(self, collection: Collection, search: HybridSearch, asked: Sequence[Question]) -> None:
        self._collection, self._search = collection, search
        self._plain = {q.text: self._ndcg(q, ()) for q in asked if q.judged is not None}

    def gain(self, question: Question, answer: str) -> float:
        """In nDCG@10, over the query without expansion."""
        return self._ndcg(question, serve(question.text, answer).lines) - self._plain[question.text]

    def _ndcg(self, question: Question, lines: Sequence[Line]) -> float:
        ranking = [hit.id for hit in self._search.search(question.text, lines)]
        return quality(ranking, self._collection.qrels[str(question.judged)]).ndcg


def worth(questions: Questions, report: Report, judge: Judge | None) -> Worth:
    """Of a report's answers; without a judge their gain is not measured."""
    answered = list(zip(questions.asked, report.answers, report.ended, strict=True))
    return mean_worth(
        [is_valid(question.text, answer, ended) for question, answer, ended in answered],
        [score(question.text, answer).score for question, answer, _ in answered],
        [judge.gain(question, answer) for question, answer, _ in answered if judge and question.judged is not None],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m publisher.measures", description=__doc__)
    parser.add_argument("collection", type=Path, help="CollectionConfig as JSON")
    parser.add_argument("cache", type=Path, help="folder of search indexes and embeddings")
    parser.add_argument("questions", type=Path)
    parser.add_argument("reports", type=Path, nargs="+")
    given = parser.parse_args()
    config = CollectionConfig.model_validate_json(given.collection.read_bytes())
    questions = Questions.model_validate_json(given.questions.read_bytes())
    reports = [Report.model_validate_json(path.read_bytes()) for path in given.reports]
    collection = load_collection(config.path, config.split)
    with HybridSearch.open(collection, Embedder(given.cache / "embeddings.sqlite"), given.cache) as search:
        judge = Judge(collection, search, questions.asked)
        print(json.dumps([asdict(worth(questions, report, judge)) for report in reports]))


if __name__ == "__main__":
    main()

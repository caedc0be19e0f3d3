"""Simulated models of known worth and with known faults, on which the gate is proven.

They write by rule. A lex line pairs two words of the query, or, as often as the model's skill says, one of them with a
rare word of a document that answers it; so skill is worth something in retrieval, and chance decides how much on each
query, as it does with a language model.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from evaluator.evalset import EvalSet
from evaluator.store import Answer
from qmd_reward.features import read_query
from qmd_schema.contract import query_terms
from qmd_schema.expansion import Expansion, Kind, Line, parse, render, split_only
from qmd_search.collections import Collection
from qmd_search.words import content_words

_RARE_WORDS = 6
"""Words of a document that a skilled line may name."""


def write_answers(eval_set: EvalSet, skill: float, seed: int) -> list[Answer]:
    """One answer with grammar to every query, and one without to every eval query, all keeping every rule.

    skill: share of the lex lines that lead to a document that answers the query, 0 to 1.
    """
    strong = {
        f"{collection.name}/{id_}": lines
        for collection in eval_set.collections
        for id_, lines in _strong_lines(collection).items()
    }
    answers = []
    for key, query in eval_set.texts.items():
        for grammar in (True, False) if key in eval_set.eval_texts else (True,):
            random = Random(f"{seed} {key} {skill} {grammar}")
            text = render(query, Expansion(tuple(_lines(query, strong.get(key, ()), skill, random))))
            answers.append(Answer(key, seed, grammar, text, len(text) // 4, ended=True, leaked=False))
    return answers


def _lines(query: str, strong: Sequence[str], skill: float, random: Random) -> list[Line]:
    bare, only = split_only(query)
    words = content_words(bare) or query_terms(bare) or [bare]
    lex = [
        random.choice(strong)
        if strong and random.random() < skill
        else f"{random.choice(words)} {random.choice(words)}"
        for _ in range(2)
    ]
    lines = [Line("hyde", f"{bare}: this is what the answer is about.")]
    lines += [Line("lex", text) for text in dict.fromkeys(lex)]
    lines += [Line("vec", f"notes about {bare}")]
    return [line for line in lines if only in (None, line.kind)]


def _strong_lines(collection: Collection) -> dict[str, list[str]]:
    """Query id -> lex lines of a word of the query and a rare one of a document that answers it and holds both."""
    words = {d.id: set(content_words(f"{d.title} {d.text}")) for d in collection.documents}
    documents_with = Counter(word for own in words.values() for word in own)
    strong = {}
    for id_, judged in collection.qrels.items():
        own = words[max(judged, key=lambda document: judged[document])]
        shared = sorted(own.intersection(content_words(collection.queries[id_])))
        rare = sorted(own, key=lambda word: (documents_with[word], word))[:_RARE_WORDS]
        strong[id_] = [f"{word} {other}" for word in shared for other in rare if word != other]
    return strong


Change = Callable[[list[Line], str], list[Line]]
"""What a fault makes of the lines of an answer to a query."""


@dataclass(frozen=True)
class Fault:
    """Something wrong with a model, and the guard that has to notice."""

    guard: str
    """The beginning of its name."""
    change: Change | None = None
    every: int = 1
    """Of how many answers one has it."""
    source: str = ""
    """The beginning of the keys it is in; all where empty."""
    slice: str = ""
    free_only: bool = False
    """Only answers without grammar have it."""
    ended: bool = True
    leaked: bool = False
    tokens: float = 1.0
    """Multiple of the tokens an answer takes; likewise for the two below."""
    latency: float = 1.0
    size: float = 1.0

    def plant(self, answers: Sequence[Answer], eval_set: EvalSet) -> list[Answer]:
        """The answers, of which some have the fault."""
        return [
            self._planted(answer, eval_set) if self._has(n, answer, eval_set) else answer
            for n, answer in enumerate(answers)
        ]

    def _has(self, number: int, answer: Answer, eval_set: EvalSet) -> bool:
        return (
            number % self.every == 0
            and answer.query.startswith(self.source)
            and (not self.slice or eval_set.slices.get(answer.query) == self.slice)
            and not (self.free_only and answer.grammar)
        )

    def _planted(self, answer: Answer, eval_set: EvalSet) -> Answer:
        text = answer.text
        if self.change:
            lines = self.change(list(parse(text).expansion.lines), eval_set.texts[answer.query])
            text = "".join(f"{line.kind}: {line.text}\n" for line in lines)
        return replace(
            answer, text=text, tokens=round(answer.tokens * self.tokens), ended=self.ended, leaked=self.leaked
        )


def _one_in_four_off_topic(lines: list[Line], query: str) -> list[Line]:
    del query
    return [line if place % 4 else Line(line.kind, "zzz qqq") for place, line in enumerate(lines)]


def _all_off_topic(lines: list[Line], query: str) -> list[Line]:
    del query
    return [Line(line.kind, "zzz qqq") for line in lines]


def _long_lex(lines: list[Line], query: str) -> list[Line]:
    del query
    return [
        Line(kind, f"{text} overview background guide") if kind == "lex" else Line(kind, text) for kind, text in lines
    ]


def _without_entities(lines: list[Line], query: str) -> list[Line]:
    entities = read_query(split_only(query)[0]).entities

    def without(text: str) -> str:
        return " ".join(word for word in text.split() if not any(e in word.lower() for e in entities)) or "notes"

    return [line if line.kind == "hyde" else Line(line.kind, without(line.text)) for line in lines]


def _hyde_last(lines: list[Line], query: str) -> list[Line]:
    del query
    return lines[::-1]


def _misled(lines: list[Line], query: str) -> list[Line]:
    """Every line keeps a word of the query and leads elsewhere."""
    word = (content_words(query) or query_terms(query) or [query])[0]
    texts: dict[Kind, str] = {
        "hyde": f"{word}, a cake with butter, sugar and eggs.",
        "lex": word,
        "vec": f"{word} cake",
    }
    return [Line(line.kind, texts[line.kind]) for line in lines]


def _other_kinds(lines: list[Line], query: str) -> list[Line]:
    """What a model writes that does not know `/only:`."""
    del lines
    bare, _ = split_only(query)
    return [Line("hyde", bare), Line("lex", bare), Line("lex", bare), Line("vec", bare)]


def faults(collection: str) -> dict[str, Fault]:
    """Every planted fault by name. collection: the one that is broken while the others gain."""
    return {
        "lines dropped": Fault("dropped lines", _one_in_four_off_topic),
        "falls back": Fault("fallback", _all_off_topic, every=10),
        "lex lines made long": Fault("lex without match", _long_lex),
        "entities removed": Fault("entities dropped", _without_entities),
        "template tokens leaked": Fault("leaked", every=25, leaked=True),
        "hyde not first": Fault("valid outputs", _hyde_last, every=7, free_only=True),
        "emits nothing": Fault("valid outputs", lambda *_: []),
        "never stops": Fault("cut", ended=False, tokens=20.0),
        "a slice broken while retrieval gains": Fault("rubric of slice only", _other_kinds, slice="only"),
        "a collection broken while the mean rises": Fault(f"nDCG@10 on {collection}", _misled, source=f"{collection}/"),
        "more tokens": Fault("tokens", tokens=1.6),
        "slower": Fault("latency", latency=1.6),
        "larger": Fault("size", size=2.0),
    }

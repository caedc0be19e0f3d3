"""Expansions scored by hand, one for each rule of the rubric: what `python -m qmd_reward` checks and shows."""

from typing import NamedTuple

from qmd_reward.rubric import Rating


class Points(NamedTuple):
    """The numbers of a RubricScore, under its names."""

    format: int
    diversity: int
    hyde: int
    quality: int
    entity: int
    think_bonus: int
    total: int
    max_possible: int
    percentage: float
    rating: Rating


class Case(NamedTuple):
    name: str
    query: str
    expansion: str
    expected: Points


_NOTHING = Points(0, 0, 0, 0, 0, 0, 0, 100, 0.0, "Failed")

CASES = (
    Case(
        "all three kinds",
        "postgres connection pool",
        "hyde: A connection pool keeps PostgreSQL sessions open and hands them to requests in turn.\n"
        "lex: postgres pool\n"
        "lex: pgbouncer connection\n"
        "vec: how to reuse database connections in postgres\n"
        "vec: sizing a pool of open sessions for many clients\n",
        Points(30, 30, 20, 20, 10, 20, 130, 140, 92.9, "Excellent"),
    ),
    Case(
        "entities kept, no hyde",
        "Kubernetes pod eviction",
        "lex: kubernetes eviction\n"
        "lex: pod disruption budget\n"
        "vec: why kubernetes evicts a running pod\n"
        "vec: memory pressure ends pods on a node\n",
        Points(30, 30, 0, 20, 20, 20, 120, 120, 100.0, "Excellent"),
    ),
    Case(
        "entity dropped",
        "conversation with Lisa about rent",
        "lex: rent increase\nlex: lease terms\nvec: what was said on the new rent for the flat\n",
        Points(30, 30, 0, 17, 0, 20, 47, 120, 39.2, "Poor"),
    ),
    Case(
        "lex line repeats the query",
        "sourdough starter",
        "lex: sourdough starter\nvec: how to keep a sourdough starter alive\n",
        Points(30, 20, 0, 20, 10, 20, 100, 120, 50.0, "Acceptable"),
    ),
    Case(
        "vec line repeats the query",
        "sourdough starter feeding",
        "lex: starter ratio\nvec: sourdough starter feeding\n",
        Points(30, 27, 0, 20, 10, 20, 107, 120, 89.2, "Excellent"),
    ),
    Case(
        "two lex lines alike",
        "tomato blight",
        "lex: blight tomato leaves\nlex: blight tomato leaves spots\nvec: brown spots on the leaves of tomato plants\n",
        Points(30, 28, 0, 20, 10, 20, 108, 120, 90.0, "Excellent"),
    ),
    Case(
        "one vec line alone",
        "bread",
        "vec: how to bake bread at home\n",
        Points(20, 15, 0, 10, 10, 20, 75, 120, 62.5, "Good"),
    ),
    Case(
        "hyde repeats a word",
        "garden compost",
        "hyde: Compost feeds compost worms, and compost worms feed compost.\n"
        "lex: compost worms\n"
        "vec: how to start composting in a small garden\n",
        Points(30, 30, 16, 20, 10, 20, 126, 140, 90.0, "Excellent"),
    ),
    Case(
        "hyde too short",
        "garden compost",
        "hyde: Compost needs air.\nlex: compost worms\nvec: how to start composting in a small garden\n",
        Points(30, 30, 17, 20, 10, 20, 127, 140, 90.7, "Excellent"),
    ),
    Case(
        "quoted phrase and filler",
        "race condition go",
        'lex: "race condition" go\nlex: go scheduling overview\nvec: how two goroutines fall into a race\n',
        Points(30, 30, 0, 20, 10, 20, 110, 120, 91.7, "Excellent"),
    ),
    Case(
        "generic lex line",
        "Go modules",
        "lex: what is go\nvec: how go modules pin versions\n",
        Points(30, 30, 0, 20, 5, 20, 105, 120, 87.5, "Excellent"),
    ),
    Case(
        "lex longer than vec, key terms lost",
        "tax return deadline",
        "lex: extension for filing with the revenue office\nvec: late filing\n",
        Points(30, 30, 0, 7, 10, 20, 97, 120, 80.8, "Excellent"),
    ),
    Case(
        "thinking used",
        "tea",
        "<think>Two lines\nwill do.</think>\nlex: green tea steeping\nvec: how long to steep green tea\n",
        Points(30, 30, 0, 20, 10, 0, 90, 120, 75.0, "Good"),
    ),
    Case(
        "end marker is taken off",
        "tea",
        "lex: green tea steeping\nvec: how long to steep green tea\n<|im_end|>",
        Points(30, 30, 0, 20, 10, 20, 110, 120, 91.7, "Excellent"),
    ),
    Case("chat marker left", "tea", "lex: green tea steeping\n<|im_start|>assistant\n", _NOTHING),
    Case("further turn left", "tea", "lex: green tea steeping\nassistant\nlex: tea leaves\n", _NOTHING),
    Case("line without a kind", "tea", "Here you are:\nlex: green tea steeping\n", _NOTHING),
    Case(
        "/only:lex",
        "sourdough starter /only:lex",
        "lex: sourdough hydration\nlex: starter feeding ratio\n",
        Points(30, 30, 0, 20, 10, 20, 110, 120, 91.7, "Excellent"),
    ),
    Case(
        "/only:lex without the entity",
        "AWS bill /only:lex",
        "lex: cloud invoice\n",
        Points(30, 15, 0, 15, 0, 20, 80, 120, 66.7, "Good"),
    ),
    Case(
        "/only:vec, one short echo",
        "tea /only:vec",
        "vec: tea types\n",
        Points(30, 10, 0, 15, 10, 20, 85, 120, 70.8, "Good"),
    ),
    Case(
        "/only:hyde with a lex line",
        "JWT expiry /only:hyde",
        "hyde: A JWT carries its expiry in the exp claim, in seconds since 1970.\nlex: jwt exp\n",
        Points(20, 15, 0, 20, 20, 20, 95, 120, 79.2, "Good"),
    ),
    Case("/only:vec without a vec line", "tea /only:vec", "lex: green tea steeping\n", _NOTHING),
)

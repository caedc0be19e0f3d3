"""What is made to imitate, with a real reward service over a small collection."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmd_rpc.reward import RewardClient
from qmd_schema.config import CollectionConfig
from qmd_schema.contract import prompt_text
from qmd_schema.errors import UserError
from qmd_schema.expansion import keeps_rules, parse
from support.rewarding import running
from support.searching import small_collection, write_collection
from trainer.config import FineTuningConfig, ImitationConfig, LoraSettings, RaySettings
from trainer.grpo_queries import TrainingQuery, check_searched
from trainer.imitation import Answered, Search, best_answers, composed

QUERY = "java that clients retry after a timeout with backoff"
FINDS = "hyde: Java beans, ground for the moka pot.\nlex: java\nvec: java coffee from an island\n"
WANDERS = "hyde: Clients retry after a timeout.\nlex: the kettle\nvec: retry the timeout with jitter\n"


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> CollectionConfig:
    """The small collection with a query whose own words find the wrong document first."""
    folder = tmp_path_factory.mktemp("collections") / "notes"
    notes = small_collection()
    notes.queries["q3"] = QUERY
    notes.qrels["q3"] = {"coffee": 1}
    write_collection(notes, folder, "train")
    return CollectionConfig(path=folder, split="train")


@pytest.fixture(scope="module")
def reward(
    tmp_path_factory: pytest.TempPathFactory, collection: CollectionConfig, free_port: Callable[[], int]
) -> Iterator[RewardClient]:
    config = {"collections": [collection.model_dump(mode="json")], "cache": str(collection.path.parent / "cache")}
    with running(tmp_path_factory.mktemp("service"), free_port(), config) as (_, client):
        yield client


@pytest.fixture
def config(collection: CollectionConfig, tmp_path: Path) -> ImitationConfig:
    training = FineTuningConfig(
        lora=LoraSettings(rank=2, alpha=4, targets=["q_proj"]),
        ray=RaySettings(),
        epochs=1,
        batch=2,
        rows_per_forward=2,
        learning_rate=1e-3,
        save_steps=1,
    )
    return ImitationConfig(prepare=tmp_path / "prepare.yaml", collections=[collection], samples=2, training=training)


def answered(query: str, *answers: str) -> Answered:
    return Answered(TrainingQuery(prompt_text(query, None), query, "notes"), list(answers))


def test_gains_are_those_of_the_search(reward: RewardClient) -> None:
    reports: list[tuple[str, int, int]] = []
    search = Search(reward, lambda *report: reports.append(report))
    query = answered(QUERY).query
    gains = search.gains([(query, parse(text).expansion.lines) for text in (FINDS, "", WANDERS)], "searches")
    scores = [reward.score_retrieval(QUERY, text, "notes") for text in (FINDS, WANDERS)]
    assert [gains[0], gains[2]] == [s.with_expansion.ndcg_at_10 - s.without_expansion.ndcg_at_10 for s in scores]
    assert gains[0] > 0 and gains[1] == 0
    assert reports == [("searches", 2, 2)]


def test_the_best_answer_is_imitated_where_it_is_better_than_the_mean(
    reward: RewardClient, config: ImitationConfig
) -> None:
    search = Search(reward, lambda *_: None)
    asked = [answered(QUERY, WANDERS, FINDS), answered("sourdough starter", "lex: starter\n"), answered(QUERY)]
    [target] = best_answers(asked, search, config)
    assert (target.query.query, target.answer) == (QUERY, FINDS) and target.gain > 0.01


def test_an_answer_is_composed_of_lex_lines_by_search_and_the_best_of_the_other_lines(
    reward: RewardClient, config: ImitationConfig
) -> None:
    search = Search(reward, lambda *_: None)
    config = config.model_copy(update={"minimum_gain": 0.0})
    [target] = composed([answered(QUERY, WANDERS, FINDS)], search, config)
    assert keeps_rules(QUERY, target.answer)
    hyde, *lex, vec = parse(target.answer).expansion.lines
    assert (hyde.text, vec.text) == ("Java beans, ground for the moka pot.", "java coffee from an island")
    assert lex and all(set(line.text.split()) <= set(QUERY.split()) for line in lex)


def test_a_collection_that_is_not_searched_is_refused(reward: RewardClient, collection: CollectionConfig) -> None:
    check_searched([collection], reward)
    other = CollectionConfig(path=Path("nowhere/docs"))
    with pytest.raises(UserError, match=r"does not search nowhere/docs, which is to be trained on"):
        check_searched([collection, other], reward)

"""Rollouts as TRL asks for them, with completions that the trainer's own model writes in this process."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import Completion
from qmd_rpc.reward import RewardClient
from qmd_rpc.v1 import reward_pb2
from qmd_schema.contract import prompt_text
from trainer.config import GrpoConfig, LoraSettings, RaySettings
from trainer.dataset import Row
from trainer.grpo import build_trainer
from trainer.rollouts import composite_reward, retrieval_gains, spread

GENERATIONS = 4
QUERIES = ("tea storage", "dune repair", "fjord ferry", "kelp recipe")


class LocalSampler:
    """An inference service in this process: loads policy folders and writes one of two answers, since a random model
    writes none; their log-probabilities are the policy's, in fp32."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.asked: list[tuple[list[str], int, str | None]] = []

    def policy_kind(self) -> str:
        return "merged"

    def load_policy(self, version: str, folder: Path) -> None:
        self.loaded.append(version)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def generate(self, prompts, *, n, decode, max_tokens, grammar, logprobs, seed, policy):  # noqa: ARG002
        self.asked.append((list(prompts), n, policy))
        torch.manual_seed(seed)
        return [[self._complete(prompt, max_tokens) for _ in range(n)] for prompt in prompts]

    def _complete(self, prompt: str, max_tokens: int) -> Completion:
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        query = prompt.rpartition("query: ")[2].partition("<|im_end|>")[0]
        text = (f"lex: {query}s\n", f"vec: a {query}\n")[int(torch.randint(2, ()))]
        answer = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        assert len(answer) <= max_tokens
        with torch.no_grad():
            scores = self.model(input_ids=torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        logprobs = scores.gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist()
        return Completion(text, answer, logprobs, "stop")


class CharacterReward:
    """A reward service that likes some first characters; a search in "notes" gains by the length of the answer."""

    def score_batch(self, pairs):
        return [reward_pb2.Score(score=0.25 + (ord(text[:1] or "a") % 8) / 16, format=len(text)) for _, text in pairs]

    def score_retrievals(self, pairs, collection):
        assert collection == "notes"
        return [reward_pb2.RetrievalScore(gain=len(answer) / 100) for _, answer in pairs]


@pytest.fixture(scope="module")
def config() -> GrpoConfig:
    return GrpoConfig(
        prepare=Path("prepare.yaml"),
        lora=LoraSettings(rank=2, alpha=4, targets=["q_proj", "v_proj"]),
        ray=RaySettings(),
        steps=2,
        queries=2,
        generations=GENERATIONS,
        rows_per_forward=4,
        learning_rate=0.05,
        max_completion=16,
        save_steps=100,
    )


@pytest.fixture(scope="module")
def trained(tiny_llama: Path, config: GrpoConfig, tmp_path_factory):
    """A GRPOTrainer after its steps, and the sampler it asked."""
    folder = tmp_path_factory.mktemp("grpo")
    sampler = LocalSampler()
    rows = [Row(query, "short", prompt_text(query, "<|im_start|>"), "hyde: x\n<|im_end|>") for query in QUERIES]
    (folder / "train.jsonl").write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows))
    trainer = build_trainer(config, folder, tiny_llama, folder, sampler, CharacterReward())
    trainer.args.save_strategy = "no"
    trainer.train()
    return trainer, sampler


def test_trl_sends_each_prompt_generations_times_in_a_row_and_the_service_gets_it_once(trained):
    _, sampler = trained
    for prompts, count, _ in sampler.asked:
        assert count == GENERATIONS
        assert len(set(prompts)) == len(prompts) == 2


def test_every_step_is_sampled_from_its_own_policy(trained):
    _, sampler = trained
    assert sampler.loaded == ["policy-000000", "policy-000001"]
    assert [policy for _, _, policy in sampler.asked] == sampler.loaded


def test_prompts_are_tokenized_as_qmd_sends_them(trained, tiny_llama):
    trainer, _ = trained
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    rollout = trainer.rollout_func([prompt_text("tea storage", "<|im_start|>")] * GENERATIONS, trainer)
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert all(ids[:2] == [start, start] and ids[2] != start for ids in rollout["prompt_ids"])


def test_the_correction_for_the_sampler_is_applied_and_near_one_for_the_same_weights(trained):
    trainer, _ = trained
    steps = [entry for entry in trainer.state.log_history if "sampling/importance_sampling_ratio/mean" in entry]
    assert len(steps) == 2
    for entry in steps:
        assert entry["sampling/sampling_logp_difference/mean"] < 0.05
        assert entry["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=0.02)


def test_reward_and_its_parts_are_logged_with_spread(trained):
    trainer, _ = trained
    entry = trainer.state.log_history[0]
    for name in ("reward", "kl", "frac_reward_zero_std", "rewards/reward/mean", "rewards/reward/std"):
        assert math.isfinite(entry[name])
    assert entry["reward/format/mean"] > 0
    assert {"reward/format/std", "reward/format/groups_without_spread"} <= entry.keys()


def test_a_reward_service_that_is_away_raises(config, free_port):
    client = RewardClient(f"127.0.0.1:{free_port()}", deadline=2)
    rollout = {"query": ["tea"] * 4, "answer": ["lex: tea\n"] * 4, "collection": [None] * 4}
    with pytest.raises(ServiceError, match="reward service"):
        composite_reward(client, config)(**rollout, log_metric=lambda *_: None)


def test_each_answer_is_searched_in_the_collection_its_query_is_asked_of():
    pairs = [("tea", "lex: tea\n"), ("dune", "lex: dunes\n"), ("fjord", "lex: fjord\n")]
    assert retrieval_gains(CharacterReward(), pairs, [None, "notes", "notes"]) == [None, 0.11, 0.11]


def test_what_a_search_gains_and_what_breaks_a_rule_enter_the_reward(config):
    good = "hyde: Green tea keeps best in a cool tin.\nlex: tea storage\nvec: storing tea\n"
    answers = [good, good + "lex: tea storage\n", good, good]
    logged = {}
    rewards = composite_reward(CharacterReward(), config)(
        query=["tea storage tin"] * 4,
        answer=answers,
        collection=[None, None, "notes", "notes"],
        log_metric=logged.__setitem__,
    )
    weights = config.reward_weights
    assert rewards[0] - rewards[1] == pytest.approx(weights.contract)
    assert rewards[2] - rewards[0] == pytest.approx(weights.retrieval / 2)
    assert logged["reward/contract/mean"] == pytest.approx(-weights.contract / 4)
    assert logged["reward/gain/mean"] == pytest.approx(len(good) / 100)


def test_groups_whose_values_are_all_the_same_are_counted():
    assert spread([1.0, 1.0, 0.0, 2.0], 2) == {
        "mean": 1.0,
        "std": pytest.approx(0.7071, abs=1e-4),
        "groups_without_spread": 0.5,
    }

"""Rollouts as TRL asks for them, with completions that the trainer's own model writes in this process."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import Completion
from qmd_rpc.v1 import reward_pb2
from qmd_schema.contract import prompt_text
from trainer.config import GrpoConfig, LoraSettings, RaySettings
from trainer.grpo import build_trainer
from trainer.grpo_queries import TrainingQuery
from trainer.launch import StageFailedError

GENERATIONS = 4
STEPS = 3
QUERIES = ("tea storage", "dune repair", "fjord ferry", "kelp recipe")


class LocalSampler:
    """An inference service in this process: loads policy folders and writes two answers, since a random model writes
    none, each for half of a group; their log-probabilities are the policy's, in fp32."""

    def __init__(self, fails_at: int | None = None) -> None:
        """fails_at: the place in a call of a completion that fails."""
        self.loaded: list[str] = []
        self.asked: list[tuple[list[str], int, str | None]] = []
        self.seeds: list[int] = []
        self._fails_at = fails_at

    def policy_kind(self) -> str:
        return "merged"

    def load_policy(self, version: str, folder: Path) -> None:
        self.loaded.append(version)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def generate(self, prompts, *, n, decode, max_tokens, grammar, logprobs, seed, policy, missing):  # noqa: ARG002
        assert policy == self.loaded[-1]
        self.asked.append((list(prompts), n, policy))
        self.seeds.append(seed)
        chance = random.Random(seed)
        answers = [[self._complete(prompt, text) for text in self._texts(prompt, n, chance)] for prompt in prompts]
        assert all(len(answer.token_ids) <= max_tokens for group in answers for answer in group)
        if self._fails_at is not None:
            if not missing:
                raise ServiceError("inference", "here", "a completion failed")
            del answers[self._fails_at // n][self._fails_at % n]
        return answers

    def _texts(self, prompt: str, n: int, chance: random.Random) -> list[str]:
        query = query_of(prompt)
        return chance.sample([f"lex: {query}s\n", f"vec: a {query}\n"] * (n // 2), n)

    def _complete(self, prompt: str, text: str) -> Completion:
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        with torch.no_grad():
            scores = self.model(input_ids=torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        logprobs = scores.gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist()
        return Completion(text, answer, logprobs, "stop")


class CharacterReward:
    """A reward service that likes some first characters, but those of every answer to `flat` queries the same."""

    def __init__(self, flat: tuple[str, ...] = (), fails_for: str | None = None) -> None:
        """fails_for: a query whose first answer gets no score."""
        self._flat = flat
        self._fails_for = fails_for

    def score(self, query, answer):
        if query == self._fails_for:
            self._fails_for = None
            raise ServiceError("reward", "here", "a call failed")
        liked = 0 if query in self._flat else ord(answer[:1] or "a") % 8
        return reward_pb2.Score(score=0.25 + liked / 16, format=len(answer))


def query_of(prompt: str) -> str:
    return prompt.rpartition("query: ")[2].partition("<|im_end|>")[0]


@pytest.fixture(scope="module")
def config() -> GrpoConfig:
    return GrpoConfig(
        prepare=Path("prepare.yaml"),
        lora=LoraSettings(rank=2, alpha=4, targets=["q_proj", "v_proj"]),
        ray=RaySettings(),
        steps=STEPS,
        queries=2,
        generations=GENERATIONS,
        rows_per_forward=4,
        learning_rate=0.05,
        max_completion=16,
        save_steps=100,
        missing_share=0.2,
    )


@pytest.fixture(scope="module")
def build(tiny_llama: Path, config: GrpoConfig, tmp_path_factory):
    """Makes a GRPOTrainer, not yet trained, of some changes to the config, a sampler and a reward service."""

    def make(sampler: LocalSampler, reward: CharacterReward | None = None, collection: str | None = None, **changes):
        folder = tmp_path_factory.mktemp("grpo")
        queries = [TrainingQuery(prompt_text(query, "<|im_start|>"), query, collection) for query in QUERIES]
        changed = config.model_copy(update=changes)
        trainer = build_trainer(changed, queries, tiny_llama, folder, sampler, reward or CharacterReward())
        trainer.args.save_strategy = "no"
        return trainer

    return make


@pytest.fixture(scope="module")
def trained(build):
    """A GRPOTrainer after its steps, each with the completions of the policy before, and the sampler it asked."""
    sampler = LocalSampler()
    trainer = build(sampler)
    trainer.train()
    return trainer, sampler


@pytest.fixture(scope="module")
def trained_on_policy(build):
    """As `trained`, with each step's own policy."""
    sampler = LocalSampler()
    trainer = build(sampler, max_staleness=0)
    trainer.train()
    return trainer, sampler


def course(trainer) -> list[dict[str, float]]:
    """The metrics of each step."""
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def step_batch(trainer) -> dict[str, torch.Tensor]:
    """What the last step trained on, [samples, tokens] or [samples]."""
    parts = trainer._buffered_inputs
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0] if parts[0][name].ndim}


def loss_mask(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """1 on the tokens that take part in the loss, [samples, tokens]."""
    return batch["completion_mask"] * batch["tool_mask"]


def answer_logps(trainer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities of the answers' tokens under the policy as it is now, [samples, tokens]."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    held = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, held, batch["completion_ids"].shape[1])[0]


def gradient(trainer, loss: torch.Tensor) -> torch.Tensor:
    """Of the adapter's weights, [numbers]."""
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights, retain_graph=True)])


def answers(trainer, batch: dict[str, torch.Tensor]) -> list[str]:
    return trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)


def test_the_service_gets_each_query_once_and_is_asked_for_all_its_completions(trained):
    _, sampler = trained
    assert len(sampler.asked) == STEPS
    for prompts, count, _ in sampler.asked:
        assert count == GENERATIONS
        assert len(set(prompts)) == len(prompts) == 2


def test_every_query_is_trained_on_before_one_comes_again(trained):
    _, sampler = trained
    assert {query_of(prompt) for prompts, _, _ in sampler.asked[:2] for prompt in prompts} == set(QUERIES)


def test_on_policy_every_step_is_sampled_from_its_own_policy(trained_on_policy):
    trainer, sampler = trained_on_policy
    assert sampler.loaded == [f"policy-{step:06d}" for step in range(STEPS)]
    assert [policy for _, _, policy in sampler.asked] == sampler.loaded
    assert [entry["staleness"] for entry in course(trainer)] == [0] * STEPS


def test_the_next_batch_is_sampled_from_the_policy_that_the_step_started_from(trained):
    trainer, sampler = trained
    assert sampler.loaded == [f"policy-{step:06d}" for step in range(STEPS)]
    assert [policy for _, _, policy in sampler.asked] == ["policy-000000", "policy-000000", "policy-000001"]
    assert [entry["staleness"] for entry in course(trainer)] == [0, 1, 1]


def test_a_batch_has_the_same_prompts_and_seed_whether_it_is_drawn_ahead_or_not(trained, trained_on_policy):
    (_, ahead), (_, in_turn) = trained, trained_on_policy
    assert [prompts for prompts, _, _ in ahead.asked] == [prompts for prompts, _, _ in in_turn.asked]
    assert ahead.seeds == in_turn.seeds
    assert len(set(ahead.seeds)) == STEPS


def test_prompts_are_tokenized_as_qmd_sends_them(trained, tiny_llama):
    trainer, _ = trained
    start = AutoTokenizer.from_pretrained(tiny_llama).convert_tokens_to_ids("<|im_start|>")
    batch = step_batch(trainer)
    for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True):
        held = ids[mask.bool()].tolist()
        assert held[:2] == [start, start] and held[2] != start


def test_the_correction_for_the_sampler_is_near_one_for_the_same_weights(trained_on_policy):
    trainer, _ = trained_on_policy
    assert len(course(trainer)) == STEPS
    for entry in course(trainer):
        assert entry["sampling/logp_difference/mean"] < 0.05
        assert entry["sampling/importance_ratio/mean"] == pytest.approx(1, abs=0.02)


def test_what_a_stale_policy_wrote_counts_by_its_truncated_importance_weight(build, config):
    cap = 1.1
    trainer = build(LocalSampler(), importance_cap=cap)
    trainer.train()
    assert course(trainer)[-1]["sampling/logp_difference/mean"] > 0.1
    batch = trainer._buffered_inputs[0]
    mask = loss_mask(batch)
    logps = answer_logps(trainer, batch)
    ratio = (logps.detach() - batch["sampling_per_token_logps"]).exp()
    assert (ratio * mask).max() > cap
    behind = batch["ref_per_token_logps"] - logps
    divergence = config.kl_coefficient * (behind.exp() - behind - 1)
    gradients = []
    for weight in (ratio.clamp(max=cap), ratio):
        per_token = divergence - weight * batch["advantages"][:, None] * logps
        gradients.append(gradient(trainer, (per_token * mask).sum() / batch["num_items_in_batch"]))
    ours = gradient(trainer, trainer.compute_loss(trainer.model, batch))
    truncated, plain = ((ours - other).norm() / other.norm() for other in gradients)
    assert truncated < 0.05  # of rounding to bf16
    assert truncated < plain / 2


def test_each_line_has_the_advantage_of_its_credit(build):
    class LexReward(CharacterReward):
        """Credits lex lines; takes nothing else into account."""

        def score(self, query, answer):  # noqa: ARG002
            return reward_pb2.Score(score=0.5)

        def score_retrieval(self, query, answer, collection):  # noqa: ARG002
            gain = 0.1 if answer.startswith("lex") else -0.02
            return reward_pb2.RetrievalScore(gain=gain, lines=[reward_pb2.LineScore(credit=gain)])

    trainer = build(LocalSampler(), LexReward(), steps=1, credit="line", collection="notes")
    trainer.train()
    batch = step_batch(trainer)
    written = loss_mask(batch).bool()
    assert batch["advantages"][written].square().mean() == pytest.approx(1, abs=1e-4)
    for text, values, held in zip(answers(trainer, batch), batch["advantages"], written, strict=True):
        line, end = values[held][:-1], values[held][-1]
        assert len(set(line.tolist())) == 1 and end == 0
        assert (line[0] > 0) == text.startswith("lex")


def test_reward_and_its_parts_are_logged_with_spread(trained):
    trainer, _ = trained
    entry = course(trainer)[0]
    for name in ("reward", "kl", "frac_reward_zero_std", "rewards/reward/mean", "rewards/reward/std"):
        assert math.isfinite(entry[name])
    assert entry["reward/format/mean"] > 0
    assert {"reward/format/std", "reward/format/groups_without_spread"} <= entry.keys()
    assert entry["missing"] == 0


def test_what_the_parts_of_a_step_take_is_logged(trained_on_policy):
    trainer, _ = trained_on_policy
    for entry in course(trainer):
        parts = [entry[f"seconds/{part}"] for part in ("wait", "sync", "backward")]
        assert min(parts) > 0
        assert sum(parts) < entry["step_time"]


@pytest.mark.parametrize(
    ("sampler", "reward"),
    [(LocalSampler(fails_at=1), None), (LocalSampler(), CharacterReward(fails_for=QUERIES[0]))],
    ids=["a completion", "a score"],
)
def test_a_sample_whose_call_failed_takes_no_part(build, sampler, reward):
    trainer = build(sampler, reward, queries=4, steps=1)
    trainer.train()
    (entry,) = course(trainer)
    assert entry["missing"] == 1 / 16
    batch = step_batch(trainer)
    out = loss_mask(batch).sum(1) == 0
    assert out.sum() == 1
    assert batch["advantages"][out] == 0
    # The rewards of its group are normalised without it: their advantages still add up to nothing.
    assert batch["advantages"].abs().sum() > 1
    assert batch["advantages"].sum().abs() < 1e-4
    assert trainer._buffered_inputs[0]["num_items_in_batch"] == loss_mask(batch).sum()


def test_a_step_with_more_missing_than_may_be_fails(build):
    with pytest.raises(StageFailedError, match=r"step 1: 1 of 16 samples are missing, .* missing_share of 0\.05;"):
        build(LocalSampler(), CharacterReward(fails_for=QUERIES[0]), queries=4, steps=1, missing_share=0.05).train()


def test_a_group_without_spread_is_skipped(build):
    trainer = build(LocalSampler(), CharacterReward(flat=QUERIES[:1]), queries=4, steps=1)
    trainer.train()
    batch = step_batch(trainer)
    assert course(trainer)[0]["groups_without_spread"] == 1 / 4
    assert (loss_mask(batch).sum(1) == 0).sum() == GENERATIONS
    assert trainer._buffered_inputs[0]["num_items_in_batch"] == loss_mask(batch).sum()


def test_a_group_without_spread_is_kept_where_the_config_says_so(build):
    trainer = build(LocalSampler(), CharacterReward(flat=QUERIES[:1]), queries=4, steps=1, groups_without_spread="keep")
    trainer.train()
    batch = step_batch(trainer)
    assert (batch["advantages"] == 0).sum() == GENERATIONS
    assert loss_mask(batch).equal(batch["completion_mask"])


def test_a_group_without_spread_gives_its_place_to_another_query(build, tiny_llama):
    trainer = build(LocalSampler(), CharacterReward(flat=QUERIES[:2]), steps=2, groups_without_spread="resample")
    trainer.train()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    prompts = Counter(query_of(tokenizer.decode(ids)) for ids in step_batch(trainer)["prompt_ids"])
    assert prompts == dict.fromkeys(QUERIES[2:], GENERATIONS)
    assert [entry["groups_without_spread"] for entry in course(trainer)] == [0, 0]
    assert sum(entry["groups_redrawn"] for entry in course(trainer)) > 0


def test_other_queries_are_drawn_no_more_often_than_the_config_says(build):
    sampler = LocalSampler()
    trainer = build(sampler, CharacterReward(flat=QUERIES), steps=1, queries=1, groups_without_spread="resample")
    trainer.train()
    assert len({query_of(prompts[0]) for prompts, _, _ in sampler.asked}) == len(sampler.asked) == 3
    (entry,) = course(trainer)
    assert (entry["groups_redrawn"], entry["groups_without_spread"]) == (2, 1)
    assert loss_mask(step_batch(trainer)).sum() == 0

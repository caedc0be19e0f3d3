"""The services that stages which learn from answers and scores ask for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from qmd_rpc.inference import InferenceClient
from qmd_rpc.reward import RewardClient
from trainer.config import GrpoConfig, ImitationConfig

READY_SECONDS = 60.0
"""Time the services may take to answer when a stage starts."""
CALLS_IN_FLIGHT = 32
"""To the reward service, which embeds the texts of searches that wait at the same time together."""
RESTART_SECONDS = 300.0
"""Time they may take when a worker starts: it may replace one that their outage ended, and vLLM then starts anew."""


@contextmanager
def open_services(
    config: GrpoConfig | ImitationConfig, ready_seconds: float = READY_SECONDS
) -> Iterator[tuple[InferenceClient, RewardClient]]:
    """Clients of both services, once they answer. Raises ServiceError."""
    with (
        InferenceClient(config.inference, config.generation_seconds) as inference,
        RewardClient(config.reward, config.reward_seconds) as reward,
    ):
        reward.wait_ready(ready_seconds)
        inference.wait_ready(ready_seconds)
        yield inference, reward

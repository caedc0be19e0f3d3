"""The services that stages which learn from answers and scores ask for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from qmd_rpc.inference import InferenceClient
from qmd_rpc.reward import RewardClient
from trainer.config import GrpoConfig, ImitationConfig

READY_SECONDS = 60.0
"""Time the services may take to answer when a stage, or a worker that replaces a lost one, starts."""


@contextmanager
def open_services(config: GrpoConfig | ImitationConfig) -> Iterator[tuple[InferenceClient, RewardClient]]:
    """Clients of both services, once they answer. Raises ServiceError."""
    with (
        InferenceClient(config.inference, config.generation_seconds) as inference,
        RewardClient(config.reward, config.reward_seconds) as reward,
    ):
        reward.wait_ready(READY_SECONDS)
        inference.wait_ready(READY_SECONDS)
        yield inference, reward

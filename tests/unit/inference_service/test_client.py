import time
from collections.abc import Callable

import pytest

from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import InferenceClient, _derived_seed


def test_a_server_that_is_away_is_waited_for_up_to_the_bound(free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with InferenceClient(address, patience=1.0) as client, pytest.raises(ServiceError) as caught:
        client.generate(["a prompt"])
    assert 0.4 < time.monotonic() - started < 5
    assert str(caught.value).startswith(f"inference service at {address}: not reachable: ")
    assert "foundry serve inference" in str(caught.value)


def test_every_sample_of_every_prompt_has_its_own_seed() -> None:
    seeds = [_derived_seed(seed, prompt, sample) for seed in range(20) for prompt in range(20) for sample in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)

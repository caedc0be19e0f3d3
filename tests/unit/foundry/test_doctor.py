import sys

import pytest

from foundry.doctor import inference_engine
from inference_service import engines


def test_vllm_is_found_where_it_runs() -> None:
    finding = inference_engine()
    assert finding.found[0].isdigit() and not finding.remedy


def test_a_machine_that_vllm_has_no_build_for_needs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    finding = inference_engine()
    assert "transformers runs model folders instead" in finding.found
    assert not finding.remedy


def test_vllm_that_could_run_but_is_not_installed_is_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)  # noqa: ARG005
    assert inference_engine().remedy == "make setup PROFILE=cpu"

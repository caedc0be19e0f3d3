import threading
from pathlib import Path

import pytest

from publisher.gguf import GgufMaker, Scratch
from publisher.questions import PROBE_QUERY, Question, Questions
from support.publishing import write_brief_model


@pytest.fixture(scope="session")
def maker() -> GgufMaker:
    return GgufMaker(threading.Event(), step_seconds=300)


@pytest.fixture(scope="session")
def brief_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a tiny Llama that answers with one short line."""
    folder = tmp_path_factory.mktemp("brief") / "llama"
    write_brief_model(tiny_llama, folder)
    return folder


@pytest.fixture(scope="session")
def brief_gguf(brief_llama: Path, maker: GgufMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a bf16 GGUF file named "brief"."""
    path = tmp_path_factory.mktemp("gguf") / "brief.gguf"
    maker.convert(brief_llama, path, "brief")
    return path


def scratch_for(folder: Path, model: Path, maker: GgufMaker) -> Scratch:
    """What a model folder makes of four prompts, and two of the queries to be answered."""
    scratch = Scratch(folder)
    questions = Questions(
        prompts=["tea", "ERR_12345 v3.14.0", "größe der Küche 日本 🦙", PROBE_QUERY],
        asked=[Question(text=PROBE_QUERY), Question(text="tea")],
        seed=0,
    )
    scratch.questions.write_text(questions.model_dump_json())
    maker.reference(model, scratch)
    return scratch


@pytest.fixture(scope="session")
def brief_scratch(brief_llama: Path, maker: GgufMaker, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """What the brief Llama's folder makes of four prompts."""
    return scratch_for(tmp_path_factory.mktemp("scratch"), brief_llama, maker)

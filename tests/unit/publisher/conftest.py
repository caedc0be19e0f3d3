import threading
from pathlib import Path

import pytest

from publisher.gguf import GgufMaker
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

"""A small collection and an embedder without a model."""

import pytest

from qmd_search.collections import Collection
from support.searching import HashingEmbedder, small_collection


@pytest.fixture
def embedder() -> HashingEmbedder:
    return HashingEmbedder()


@pytest.fixture
def notes() -> Collection:
    return small_collection()

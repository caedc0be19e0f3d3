"""The rubric against its plain transliteration, which the benchmark times it against."""

from hypothesis import given
from hypothesis import strategies as st

from qmd_reward.rubric import score
from support.benchmarks import load_benchmark

WORDS = ["How", "to", "AWS", "pod", "v2.1", "C++", "tea", "Bob", "the", "overview", "what is", "learn about", "Σ", "ℂ"]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join) | st.text(max_size=40)
queries = st.builds(str.__add__, texts, st.sampled_from(["", " /only:lex", " /only:vec", " /only:hyde"]))
lines = st.builds(str.__add__, st.sampled_from(["lex: ", "vec: ", "hyde: ", "lex:", "vec:", " hyde:\t", ""]), texts)
expansions = st.lists(lines, max_size=8).map("\n".join)

plain_rubric = load_benchmark("plain_rubric")


@given(query=queries, expansion=expansions)
def test_any_expansion_gets_the_fields_of_the_plain_transliteration(query: str, expansion: str) -> None:
    assert score(query, expansion).as_row() == plain_rubric.score(query, expansion)

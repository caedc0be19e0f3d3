import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from huggingface_hub import ModelCard

from publisher.acceptance import Acceptance
from publisher.card import Published, completion_request, modelfile, texts
from publisher.gguf import GgufFile
from publisher.parity import FileParity, Worth
from publisher.registry import Publication
from qmd_schema.contract import GRAMMAR, QMD_DECODE, prompt_text
from support.publishing import passing_verdict, publisher_config

BOS = "<|im_start|>"
REVISION = "ab" * 20


def parity(quantisation: str) -> FileParity:
    """Q4_K_M is left out of the publication."""
    broken = ("rubric score 0.200 below bf16, at most 0.05 is allowed",) if quantisation == "Q4_K_M" else ()
    return FileParity(quantisation, 145_000_000, 0.0123, Worth(1.0, 0.6 if broken else 0.8, 0.031), broken)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    config = publisher_config(tmp_path)
    names = {q: f"{config.name}-{REVISION[:8]}-{q}.gguf" for q in config.quantisations}
    publication = Publication(
        repository=config.repository,
        revision=REVISION,
        parent=None,
        created="2026-01-01T00:00:00+00:00",
        repositories=[config.repository],
        gguf={q: name for q, name in names.items() if q != "Q4_K_M"},
        default_quantisation="Q8_0",
        verdict_id="verdict-1",
        provenance={"model": "a" * 64},
    )
    files = [
        GgufFile(q, name, 145_000_000, {"Q5_0": 211, "F32": 61}, "lex: old photos\n", parity(q))
        for q, name in names.items()
    ]
    return Published(config, publication, passing_verdict("a" * 64), files, BOS, ["sft", "grpo"], ["train.jsonl"])


def test_the_model_cards_metadata_is_read_by_the_hubs_own_library(published: Published) -> None:
    data = ModelCard(texts(published)["qmd-query-expansion-1M/README.md"]).data
    assert (data.license, data.base_model, data.pipeline_tag) == ("apache-2.0", "acme/tiny", "text-generation")
    results = {result.metric_type: result.metric_value for result in data.eval_results or []}
    assert results == {"ndcg@10": 0.7, "rubric": 0.86, "gain in nDCG@10, over reference": 0.031}


@pytest.mark.parametrize("name", ["-gguf", "-sft", "-grpo"])
def test_companion_cards_name_what_they_come_from(published: Published, name: str) -> None:
    base = {"-gguf": "acme/qmd-query-expansion-1M", "-sft": "acme/tiny", "-grpo": "acme/qmd-query-expansion-1M-sft"}
    assert ModelCard(texts(published)[f"qmd-query-expansion-1M{name}/README.md"]).data.base_model == base[name]


def test_the_model_card_shows_what_the_verdict_found(published: Published) -> None:
    card = texts(published)["qmd-query-expansion-1M/README.md"]
    assert "| over reference | 0.031 | 0.012 | 0.05 | 80 |" in card
    assert "| ndcg@10 | 0.7 | 0.669 |  |" in card
    assert r"| fallback \| notes | 0.01 | 0.02 | yes | yes |" in card
    assert "- gain over reference 0.031, at least 0.012 with 95 % confidence" in card
    assert "It is a fine-tuned tiny model by Acme." in card
    assert f"| model | `{'a' * 64}` |" in card


def test_every_table_has_as_many_cells_in_each_row(published: Published) -> None:
    for name, text in texts(published).items():
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
            assert len(cells) == 1, (name, table)


def test_the_cards_point_qmd_at_the_default_file(published: Published) -> None:
    wanted = f"  generate: /absolute/path/to/qmd-query-expansion-1M-{REVISION[:8]}-Q8_0.gguf\n"
    assert all(wanted in texts(published)[f"qmd-query-expansion-1M{name}/README.md"] for name in ("", "-gguf"))


def test_the_cards_say_what_was_compared_and_which_file_is_for_qmd(published: Published) -> None:
    for name in ("", "-gguf"):
        card = texts(published)[f"qmd-query-expansion-1M{name}/README.md"]
        assert "| Q8_0 | 145 | 0.0123 | 1.000 | 0.800 | +0.031 | **use this one** |" in card
        assert "not published: rubric score 0.200 below bf16, at most 0.05 is allowed |" in card
        assert "Q8_0 is the smallest that holds them all." in card


def test_a_file_that_is_not_published_is_listed_nowhere_else(published: Published) -> None:
    card = texts(published)["qmd-query-expansion-1M-gguf/README.md"]
    assert f"{REVISION[:8]}-Q8_0.gguf (default)" in card and f"{REVISION[:8]}-Q4_K_M.gguf" not in card


def test_the_cards_show_what_the_qmd_client_made_of_the_files(published: Published) -> None:
    names = [f"qmd-query-expansion-1M{name}/README.md" for name in ("", "-gguf")]
    assert all("not judged in the QMD client" in texts(published)[name] for name in names)
    acceptance = Acceptance(files={"mine": "e" * 64}, table="| model | fallbacks |\n|---|---|\n| mine | 0.4% |\n")
    cards = texts(replace(published, acceptance=acceptance))
    assert all(f"{acceptance.table}\nFiles by their SHA-256: mine `{'e' * 64}`." in cards[name] for name in names)


def test_the_gguf_card_notes_k_types_that_fell_back(published: Published) -> None:
    with_q4 = replace(
        published, publication=published.publication.model_copy(update={"gguf": dict.fromkeys(("Q8_0", "Q4_K_M"), "")})
    )
    card = texts(with_q4)["qmd-query-expansion-1M-gguf/README.md"]
    assert "211 tensors of Q4_K_M have others" in card
    assert "fell" not in texts(published)["qmd-query-expansion-1M-gguf/README.md"]


def test_the_gains_are_drawn_with_their_intervals(published: Published) -> None:
    written = texts(published)
    assert "](gains.svg)" in written["qmd-query-expansion-1M/README.md"]
    drawn = ElementTree.fromstring(written["qmd-query-expansion-1M/gains.svg"])
    labels = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"over reference", "+0.031", "minimum effect 0.01"} <= set(labels)
    [circle] = drawn.iter("{http://www.w3.org/2000/svg}circle")
    ends = [line for line in drawn.iter("{http://www.w3.org/2000/svg}line") if line.get("stroke-width") == "3"]
    assert float(ends[0].attrib["x1"]) < float(circle.attrib["cx"]) < float(ends[0].attrib["x2"])


@pytest.mark.parametrize("bos_token", [BOS, "<|endoftext|>", None])
def test_ollama_is_given_qmds_prompt_and_sampling(bos_token: str | None) -> None:
    text = modelfile("tiny.gguf", bos_token)
    template = text.split('"""')[1]
    assert template.replace("{{ .Prompt }}", "tea") == prompt_text("tea", bos_token)
    assert f"PARAMETER presence_penalty {QMD_DECODE.presence_penalty}\n" in text
    assert "PARAMETER stop <|im_end|>\n" in text


def test_llama_cpp_is_given_qmds_prompt_and_grammar() -> None:
    request = json.loads(completion_request("tea", BOS))
    assert (request["prompt"], request["grammar"]) == (prompt_text("tea", BOS), GRAMMAR)
    assert request["n_predict"] == QMD_DECODE.max_tokens

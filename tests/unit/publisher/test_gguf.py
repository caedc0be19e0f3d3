import json
import shutil
from pathlib import Path

import pytest

from publisher.child import StepError
from publisher.gguf import GgufMaker, Scratch, tensor_types
from publisher.parity import fell_back
from qmd_schema.errors import ArtifactError
from qmd_schema.expansion import parse

TOLERANCE = 0.03


@pytest.fixture
def model(brief_llama: Path, tmp_path: Path) -> Path:
    """A copy of the brief Llama, to be changed."""
    return Path(shutil.copytree(brief_llama, tmp_path / "model"))


@pytest.fixture(scope="session")
def tiny_qwen3(brief_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 (tied embeddings, norms on queries and keys) whose rows are long enough for K types."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(brief_llama)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny-qwen3")
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("quantisation", "wanted"), [("Q8_0", "Q8_0"), ("Q4_K_M", "Q5_0")])
def test_a_quantised_file_answers_and_is_smaller(
    brief_gguf: Path,
    brief_llama: Path,
    brief_scratch: Scratch,
    maker: GgufMaker,
    tmp_path: Path,
    quantisation: str,
    wanted: str,
) -> None:
    path = tmp_path / f"{quantisation}.gguf"
    maker.quantise(brief_gguf, path, quantisation)
    report = maker.ask(path, brief_llama, quantisation, TOLERANCE, brief_scratch)
    assert len(report.answers) == 2 and all(report.ended)
    assert path.stat().st_size < brief_gguf.stat().st_size
    assert wanted in tensor_types(path)  # 64 weights a row are too few for K types
    assert bool(fell_back(quantisation, tensor_types(path))) == (quantisation == "Q4_K_M")


def test_a_converted_file_keeps_its_embeddings_tied_and_its_name(brief_gguf: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(brief_gguf)
    names = {tensor.name for tensor in reader.tensors}
    assert "token_embd.weight" in names and "output.weight" not in names
    assert reader.fields["general.name"].contents() == "brief"
    assert set(tensor_types(brief_gguf)) == {"BF16", "F32"}


def test_a_qwen3_is_converted_quantised_and_says_what_its_folder_says(
    tiny_qwen3: Path, brief_scratch: Scratch, maker: GgufMaker, tmp_path: Path
) -> None:
    scratch = Scratch(tmp_path)
    questions = json.loads(brief_scratch.questions.read_text())
    del questions["asked"][1:]  # a random model writes to the limit
    scratch.questions.write_text(json.dumps(questions))
    maker.reference(tiny_qwen3, scratch)
    bf16, small = tmp_path / "bf16.gguf", tmp_path / "small.gguf"
    maker.convert(tiny_qwen3, bf16, "tiny-qwen3")
    maker.quantise(bf16, small, "Q4_K_M")
    reports = [
        maker.ask(path, tiny_qwen3, quantisation, TOLERANCE, scratch)
        for path, quantisation in ((bf16, "bf16"), (small, "Q4_K_M"))
    ]
    for report in reports:
        [answer] = report.answers
        assert parse(answer).expansion.lines
    exact, rough = (max(report.total_variation) for report in reports)
    assert exact < TOLERANCE and exact < rough / 4
    assert "Q4_K" in tensor_types(small) and fell_back("Q4_K_M", tensor_types(small)) == 0


def test_a_folder_that_is_no_model_fails_with_the_converters_words(maker: GgufMaker, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"]}))
    with pytest.raises(StepError, match="NoSuchModel is not supported"):
        maker.convert(tmp_path, tmp_path / "out.gguf", "odd")


def test_a_file_without_chat_template_is_refused(
    model: Path, brief_scratch: Scratch, maker: GgufMaker, tmp_path: Path
) -> None:
    (model / "chat_template.jinja").unlink()
    maker.convert(model, tmp_path / "bare.gguf", "bare")
    with pytest.raises(ArtifactError, match=r"bare\.gguf: no chat template"):
        maker.ask(tmp_path / "bare.gguf", model, "bf16", TOLERANCE, brief_scratch)


def test_a_file_that_reads_the_prompt_as_other_tokens_is_refused(
    brief_gguf: Path, model: Path, brief_scratch: Scratch, maker: GgufMaker
) -> None:
    path = model / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"bos_token": "<|endoftext|>"}))
    with pytest.raises(ArtifactError, match="other tokens than the model was trained on"):
        maker.ask(brief_gguf, model, "bf16", TOLERANCE, brief_scratch)


def test_a_file_of_other_weights_than_the_judged_ones_is_refused(
    tiny_llama: Path, brief_scratch: Scratch, maker: GgufMaker, tmp_path: Path
) -> None:
    maker.convert(tiny_llama, tmp_path / "other.gguf", "other")
    questions = json.loads(brief_scratch.questions.read_text()) | {"asked": []}
    scratch = Scratch(tmp_path)
    scratch.questions.write_text(json.dumps(questions))
    scratch.reference.symlink_to(brief_scratch.reference)
    with pytest.raises(ArtifactError, match=r"other\.gguf: its next-token probabilities differ by (0\.9|1\.0)"):
        maker.ask(tmp_path / "other.gguf", tiny_llama, "bf16", TOLERANCE, scratch)

"""What QMD does with a model: its prompt, grammar, sampling, term filter and fallback (QMD 2.8)."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qmd_schema.errors import ArtifactError
from qmd_schema.expansion import Line, parse

QMD_CONTRACT = "2.8"

SYSTEM_PROMPT = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible.\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering "
    "something incorrectly. If you don't know the answer to a question, don't share false information."
)

GRAMMAR = r"""root ::= line+
line ::= type ": " content "\n"
type ::= "lex" | "vec" | "hyde"
content ::= [^\n]+
"""

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"


@dataclass(frozen=True)
class Decode:
    """How QMD samples. The steps run in this order: presence penalty, top-k, top-p, temperature, draw."""

    temperature: float = 0.7
    top_k: int = 20
    top_p: float = 0.8
    presence_penalty: float = 0.5
    penalty_window: int = 64
    """Tokens the presence penalty looks back over, of the answer alone."""
    max_tokens: int = 600
    context_tokens: int = 2048


QMD_DECODE = Decode()


def user_text(query: str) -> str:
    return f"/no_think Expand this search query: {query}"


def bos_token(model_folder: Path) -> str | None:
    """The BOS token of a model folder's tokenizer, for `prompt_text`. Raises ArtifactError without a tokenizer."""
    path = model_folder / "tokenizer_config.json"
    if not path.is_file():
        raise ArtifactError(f"{model_folder}: no tokenizer_config.json; a model folder needs its tokenizer beside it.")
    token = json.loads(path.read_text(encoding="utf-8")).get("bos_token")
    return token["content"] if isinstance(token, dict) else token


def prompt_text(query: str, bos_token: str | None) -> str:
    """The text that QMD's client sends to the model, up to where the answer begins.

    bos_token: the tokenizer's. node-llama-cpp's ChatML wrapper puts one BOS ahead where that token is
    `<|im_start|>` (SmolLM2) and none otherwise (Qwen). Tokenize the result without adding special tokens.
    """
    lead = TURN_START if bos_token == TURN_START else ""
    return (
        f"{lead}{TURN_START}system\n{SYSTEM_PROMPT}{TURN_END}\n"
        f"{TURN_START}user\n{user_text(query)}{TURN_END}\n{TURN_START}assistant\n"
    )


def query_terms(query: str) -> list[str]:
    """The query's terms as QMD's filter sees them: lower case, a-z and 0-9 only."""
    return re.sub(r"[^a-z0-9\s]", " ", query.lower()).split()


def keeps(query: str, text: str) -> bool:
    """Whether QMD keeps a line of this text: it holds a query term, or the query has none."""
    terms = query_terms(query)
    lowered = text.lower()
    return not terms or any(term in lowered for term in terms)


def fallback(query: str) -> tuple[Line, ...]:
    """The lines QMD uses when it dropped all of the model's."""
    return (Line("hyde", f"Information about {query}"), Line("lex", query), Line("vec", query))


@dataclass(frozen=True)
class ServedExpansion:
    """What is left of a model's answer when QMD searches with it."""

    lines: tuple[Line, ...]
    """The lines searched with; lines equal to the query are gone."""
    dropped: tuple[Line, ...]
    """The model's lines that held no query term."""
    is_fallback: bool


def serve(query: str, answer: str) -> ServedExpansion:
    """Puts a model's raw answer through QMD's parser, term filter and fallback."""
    return serve_lines(query, parse(answer).expansion.lines)


def serve_lines(query: str, lines: Iterable[Line]) -> ServedExpansion:
    """As `serve`, for lines already parsed."""
    written = tuple(lines)
    kept = tuple(line for line in written if keeps(query, line.text))
    dropped = tuple(line for line in written if not keeps(query, line.text))
    searched = kept or fallback(query)
    without_echo = tuple(line for line in searched if line.text != query)
    return ServedExpansion(without_echo, dropped, is_fallback=not kept)

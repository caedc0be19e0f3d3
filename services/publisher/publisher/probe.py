"""A model folder or GGUF file asked a publication's questions, in a process of its own: its memory goes with it.

`python -m publisher.probe reference MODEL QUESTIONS LOGITS` writes what the folder's own tokenizer and weights make of
the prompts; `ask GGUF QUESTIONS REFERENCE REPORT` compares a file with that and answers; `quantise SOURCE TARGET TYPE`
writes a smaller file.
"""

import argparse
import copy
import json
import os
from pathlib import Path

import numpy as np
from pydantic import Field

from publisher.llama import ExpansionModel, Logits, quantise
from publisher.parity import distance, shared_lead
from publisher.questions import Questions
from qmd_schema.config import StrictModel
from qmd_schema.contract import bos_token, prompt_text

AT_ONCE = 16
"""Answers written together: more of them share each reading of the weights, and each takes a context of memory."""
CONTEXT_TOKENS = 1024
"""Of an answer with its prompt of a hundred or two, and QMD's 600 tokens at most."""


class Report(StrictModel):
    """What a GGUF file said."""

    chat_template: str
    prompt_ids: list[list[int]] = Field(description="Token ids of each prompt.")
    total_variation: list[float] = Field(description="Distance from the reference, of each prompt.")
    answers: list[str] = Field(description="To each question that was asked, unfiltered.")
    ended: list[bool] = Field(description="Whether each answer ended by itself.")


def prompt_ids(model: Path, queries: list[str]) -> list[list[int]]:
    """The token ids of QMD's prompts as a model folder's own tokenizer gives them: what it was trained on."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    bos = bos_token(model)
    return [list(tokenizer.encode(prompt_text(query, bos), add_special_tokens=False).ids) for query in queries]


def write_reference(model: Path, questions: Questions, output: Path) -> None:
    """Writes the logits behind what all prompts begin with, as one array [tokens of all prompts, vocabulary].

    The weights are as they ship, in bf16; the computation is in fp32.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    prompts = prompt_ids(model, questions.prompts)
    lead = shared_lead(prompts)
    shape = (sum(len(ids) - lead for ids in prompts), loaded.config.vocab_size)
    written = np.lib.format.open_memmap(output, mode="w+", dtype=np.float32, shape=shape)
    place = 0
    with torch.no_grad():
        read = loaded(torch.tensor([prompts[0][:lead]]), use_cache=True, logits_to_keep=1).past_key_values
        for ids in prompts:
            logits = loaded(torch.tensor([ids[lead:]]), past_key_values=copy.deepcopy(read)).logits[0]
            written[place : place + len(logits)] = logits.numpy()
            place += len(logits)
    written.flush()


def ask(gguf: Path, questions: Questions, reference: Path) -> Report:
    """reference: what `write_reference` wrote. Where the tokens differ nothing else is asked."""
    threads = len(os.sched_getaffinity(0))
    with ExpansionModel(gguf, AT_ONCE, CONTEXT_TOKENS, threads) as model:
        prompts = [model.prompt_ids(query) for query in questions.prompts]
        expected: Logits = np.load(reference, mmap_mode="r")
        lead = shared_lead(prompts)
        if sum(len(ids) - lead for ids in prompts) != len(expected):
            return Report(
                chat_template=model.chat_template, prompt_ids=prompts, total_variation=[], answers=[], ended=[]
            )
        model.share(prompts[0][:lead])
        distances, place = [], 0
        for ids in prompts:
            rows = expected[place : place + len(ids) - lead]
            distances.append(distance(model.logits(ids, lead), rows))
            place += len(rows)
        seeds = [questions.seed + number for number in range(len(questions.asked))]
        answers = model.expand_all([question.text for question in questions.asked], seeds)
        return Report(
            chat_template=model.chat_template,
            prompt_ids=prompts,
            total_variation=distances,
            answers=[answer.text for answer in answers],
            ended=[answer.ended for answer in answers],
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m publisher.probe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in {
        "reference": ("model", "questions", "logits"),
        "ask": ("gguf", "questions", "reference", "report"),
        "quantise": ("source", "target"),
    }.items():
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument, type=Path)
    commands.choices["quantise"].add_argument("quantisation")
    given = parser.parse_args()
    if given.command == "quantise":
        quantise(given.source, given.target, given.quantisation)
        return
    questions = Questions.model_validate_json(given.questions.read_bytes())
    if given.command == "reference":
        write_reference(given.model, questions, given.logits)
    else:
        given.report.write_text(json.dumps(ask(given.gguf, questions, given.reference).model_dump()))


if __name__ == "__main__":
    main()

"""Answers of a model that runs in this process, many written at the same time by one thread."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import torch

from inference_service.drawing import Drawer, Row
from inference_service.language_model import LanguageModel, ModelError, Step
from qmd_schema.contract import Decode

OpenModel = Callable[[Path], LanguageModel]

_SHORTEST_LEAD = 32
"""Tokens that two prompts must have in common for these to be kept and copied."""


class RefusedError(Exception):
    """A request, or a model, that cannot be taken as it is."""


@dataclass(frozen=True)
class Order:
    """An answer that is asked for."""

    prompt: str
    decode: Decode
    max_tokens: int
    seed: int
    grammar: bool
    logprobs: bool


@dataclass(frozen=True)
class Answer:
    text: str
    token_ids: list[int]
    """With the end token where `finish_reason` is "stop"."""
    logprobs: list[float] | None
    """Of each token, under the model's softmax at temperature 1."""
    finish_reason: str


@dataclass
class _Slot:
    """A sequence that is being written."""

    order: Order
    future: "Future[Answer]"
    sequence: int
    prompt: list[int]
    row: Row
    read: int = 0
    """Tokens of prompt and answer that the model has read."""
    logprobs: list[float] = field(default_factory=list)

    @property
    def unread(self) -> list[int]:
        answer = self.row.answer
        return (
            self.prompt[self.read :] + answer
            if self.read < len(self.prompt)
            else answer[self.read - len(self.prompt) :]
        )


class Engine:
    """Writes answers in the background, with QMD's draws; `submit` and `load` may be called from any thread.

    All prompts begin alike, so what they have in common is read once, in a sequence of its own, and copied.
    """

    def __init__(self, open_model: OpenModel, path: Path) -> None:
        """Raises ModelError for a model that cannot be loaded."""
        self._open = open_model
        self._orders: queue.Queue[tuple[Order, Future[Answer]] | tuple[Path, Future[None]] | None] = queue.Queue()
        self._use(open_model(path))
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def sequences(self) -> int:
        """Answers that are written at the same time."""
        return self._model.sequences - 1

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def submit(self, order: Order) -> "Future[Answer]":
        """The future raises RefusedError for a prompt that leaves no room for the answer."""
        future: Future[Answer] = Future()
        self._orders.put((order, future))
        return future

    def load(self, path: Path) -> "Future[None]":
        """Takes another model; wait for all answers first. The future raises RefusedError where the old one stays."""
        future: Future[None] = Future()
        self._orders.put((path, future))
        return future

    def close(self) -> None:
        self._orders.put(None)
        self._thread.join()
        self._model.close()

    def _use(self, model: LanguageModel) -> None:
        self._model = model
        self._drawer = Drawer(model.grammar_tokens(), newline=model.tokenize("\n")[0])
        self._lead: list[int] = []
        self._last_prompt: list[int] = []

    def _run(self) -> None:
        slots: dict[int, _Slot] = {}
        while True:
            while len(slots) < self.sequences:
                try:
                    order = self._orders.get(block=not slots)
                except queue.Empty:
                    break
                if order is None:
                    return
                self._take(order, slots)
            try:
                finished = self._advance(list(slots.values()))
            except Exception as error:  # the answers under way are lost, not the service
                finished = list(slots.values())
                for slot in finished:
                    slot.future.set_exception(error)
            for slot in finished:
                self._model.forget(slot.sequence)
                del slots[slot.sequence]

    def _take(self, order: "tuple[Order, Future[Answer]] | tuple[Path, Future[None]]", slots: dict[int, _Slot]) -> None:
        wanted, future = order
        try:
            if isinstance(wanted, Path):
                self._replace(wanted)
                future.set_result(None)  # type: ignore[arg-type]
            else:
                sequence = next(number for number in range(1, self._model.sequences) if number not in slots)
                slots[sequence] = self._begin(wanted, future, sequence)  # type: ignore[arg-type]
        except (ModelError, RefusedError) as error:
            future.set_exception(error)

    def _replace(self, path: Path) -> None:
        try:
            model = self._open(path)
        except ModelError as error:
            raise RefusedError(str(error)) from error
        self._model.close()
        self._use(model)

    def _begin(self, order: Order, future: "Future[Answer]", sequence: int) -> _Slot:
        prompt = self._model.tokenize(order.prompt)
        if len(prompt) + order.max_tokens > self._model.context:
            problem = f"a prompt of {len(prompt)} tokens leaves no room for {order.max_tokens} in {self._model.context}"
            raise RefusedError(problem)
        row = self._drawer.row(order.decode, order.seed, [], order.grammar)
        return _Slot(order, future, sequence, prompt, row, read=self._copy_lead(prompt, sequence))

    def _copy_lead(self, prompt: list[int], sequence: int) -> int:
        """Gives the sequence what all prompts begin with, as far as it is known; returns its number of tokens."""
        lead = _common(self._lead or self._last_prompt, prompt[:-1])
        self._last_prompt = prompt
        if len(lead) < _SHORTEST_LEAD:
            return 0
        if lead != self._lead:
            self._lead = []
            self._model.forget(0)
            for start in range(0, len(lead), self._model.batch_tokens):
                part = lead[start : start + self._model.batch_tokens]
                self._model.read([Step(0, start + place, token, False) for place, token in enumerate(part)])
            self._lead = lead
        self._model.copy(0, sequence)
        return len(lead)

    def _advance(self, slots: list[_Slot]) -> list[_Slot]:
        """One pass through the model, with a token more for each slot whose prompt is read. Returns the finished."""
        steps: list[Step] = []
        writing: list[_Slot] = []
        room = self._model.batch_tokens
        parts: dict[int, list[int]] = {}
        for slot in sorted(slots, key=lambda slot: len(slot.unread)):  # a long prompt waits for those that write
            parts[slot.sequence] = slot.unread[:room]
            room -= len(parts[slot.sequence])
        for slot in slots:
            part = parts[slot.sequence]
            is_whole = len(part) == len(slot.unread)
            steps += [
                Step(slot.sequence, slot.read + place, token, is_whole and place == len(part) - 1)
                for place, token in enumerate(part)
            ]
            slot.read += len(part)
            if is_whole:
                writing.append(slot)
        logits = self._model.read(steps)
        if not writing:
            return []
        self._draw(logits, writing)
        return [slot for slot in writing if self._is_finished(slot)]

    def _draw(self, logits: torch.Tensor, slots: list[_Slot]) -> None:
        """Adds a token to each slot's answer. logits: [slots, vocabulary]."""
        scores = {place: logits[place].log_softmax(-1) for place, slot in enumerate(slots) if slot.order.logprobs}
        groups: dict[Decode, list[int]] = {}
        for place, slot in enumerate(slots):
            groups.setdefault(slot.order.decode, []).append(place)
        for places in groups.values():
            tokens = self._drawer.draw(logits[places], [slots[place].row for place in places])
            for place, token in zip(places, tokens.tolist(), strict=True):
                slots[place].row.answer.append(token)
                if place in scores:
                    slots[place].logprobs.append(float(scores[place][token]))

    def _is_finished(self, slot: _Slot) -> bool:
        """Whether the answer has ended, by itself or at its limit; then its future has it."""
        answer = slot.row.answer
        ended = answer[-1] in self._model.end_tokens
        if not ended and len(answer) < slot.order.max_tokens:
            return False
        text = self._model.text(answer)
        logprobs = slot.logprobs if slot.order.logprobs else None
        slot.future.set_result(Answer(text, answer, logprobs, "stop" if ended else "length"))
        return True


def _common(first: list[int], second: list[int]) -> list[int]:
    """What both begin with."""
    differing = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[: next(differing, min(len(first), len(second)))]

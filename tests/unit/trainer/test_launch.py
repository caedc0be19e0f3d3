"""What a stage that failed on Ray says."""

from pathlib import Path

from trainer.launch import _explain

OUT_OF_MEMORY = """Training failed due to controller error:
4 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: 6aad99b8) was \
22.46GB used / 23.54GB limit (0.954110)
OOM kill reason: Memory usage 24225001472B exceeded threshold of 24012257280B (95.0% of 25276059648B limit)
Object store memory usage: [- objects spillable: 1
"""


class WorkerError(Exception):
    def __init__(self) -> None:
        failures = "Traceback …\nValueError: odd rows", "ValueError: odd rows"
        self.worker_failures = dict(enumerate(map(ValueError, failures)))


def test_memory_that_ran_out_is_told_in_a_sentence_with_what_to_do():
    (line,) = str(_explain(Exception(OUT_OF_MEMORY), Path("run/grpo"))).splitlines()
    assert line.startswith("grpo: Ray ended the training: 22.46 of the machine's 23.54 GiB of memory are used.")
    assert "rows_per_forward" in line


def test_what_all_workers_failed_of_is_told_once():
    assert str(_explain(WorkerError(), Path("run/sft"))) == "sft: ValueError: odd rows. Log: run/sft/logs"

"""How fast expansions are scored: in process, over the wire, and by retrieval; all ratios from one run.

The texts are those of a file of pairs, {"query": …, "expansion": …} a line. With --collection, ScoreRetrieval is timed
on a BEIR folder as well, with expansions as models are taught to write them. Give it the machine: another busy process
shows in every figure.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import plain_rubric
import psutil
import yaml

from qmd_reward.pairs import read_pairs
from qmd_reward.rubric import score
from qmd_rpc.reward import AsyncRewardClient, Pair, RewardClient
from qmd_schema.examples import load_examples
from qmd_search.collections import load_collection

BATCH = 256
ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="JSONL file of pairs")
    parser.add_argument("--collection", type=Path, help="BEIR folder for ScoreRetrieval")
    parser.add_argument("--split", help="its judgements: qrels_SPLIT.tsv")
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="numbers of worker processes to time batches with; the rest is timed with the last (default: 0 1 2)",
    )
    parser.add_argument("--rate", type=int, default=500, help="unary calls a second (default: 500)")
    parser.add_argument("--seconds", type=float, default=300, help="how long unary calls are made (default: 300)")
    parser.add_argument("--port", type=int, default=8019)
    parser.add_argument("--load", metavar="ADDRESS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pairs = [(pair.query, pair.expansion) for pair in read_pairs(arguments.pairs)]
    if arguments.load:
        print(json.dumps(asyncio.run(call_at_rate(arguments.load, pairs, arguments.rate, arguments.seconds))))
        return 0
    in_process = time_rubric(pairs)
    for workers in arguments.workers[:-1]:
        with service(arguments, workers) as (_, client):
            time_batches(client, pairs, in_process, workers)
    with service(arguments, arguments.workers[-1], arguments.collection) as (process, client):
        time_batches(client, pairs, in_process, arguments.workers[-1])
        time_unary(arguments, process)
        if arguments.collection:
            time_retrieval(client, arguments)
    return 0


def time_rubric(pairs: list[Pair]) -> float:
    """Scores a second in process, after a check that every field is what the plain transliteration gives."""
    differing = sum(score(*pair).as_row() != plain_rubric.score(*pair) for pair in pairs)
    print(f"rubric: {len(pairs):,} pairs, {differing} differ from the plain transliteration")
    rates = {"plain": 0.0, "rubric": 0.0}
    for _ in range(ROUNDS):
        rates["plain"] = max(rates["plain"], rate(lambda: [plain_rubric.score(*pair) for pair in pairs], len(pairs)))
        rates["rubric"] = max(rates["rubric"], rate(lambda: [score(*pair) for pair in pairs], len(pairs)))
    ratio = rates["rubric"] / rates["plain"]
    print(f"rubric in process: {rates['rubric']:,.0f}/s, plain {rates['plain']:,.0f}/s: {ratio:.2f} times as fast")
    return rates["rubric"]


def time_batches(client: RewardClient, pairs: list[Pair], in_process: float, workers: int) -> None:
    batches = [pairs[start : start + BATCH] for start in range(0, len(pairs) - BATCH + 1, BATCH)] or [pairs]
    scored = sum(map(len, batches))
    best = max(rate(lambda: [client.score_batch(batch) for batch in batches], scored) for _ in range(ROUNDS))
    print(f"{workers} workers: ScoreBatch of {BATCH}: {best:,.0f}/s, {best / in_process:.0%} of the rate in process")
    streamed = max(rate(lambda: list(client.score_stream(pairs)), len(pairs)) for _ in range(ROUNDS))
    print(f"{workers} workers: ScoreStream: {streamed:,.0f}/s, {streamed / in_process:.0%} of the rate in process")


def time_unary(arguments: argparse.Namespace, process: psutil.Process) -> None:
    """From a process of its own; memory is that of the service and its workers."""
    before = memory(process)
    command = [sys.executable, __file__, str(arguments.pairs), "--load", f"127.0.0.1:{arguments.port}"]
    command += ["--rate", str(arguments.rate), "--seconds", str(arguments.seconds)]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"Score at {figures['rate']:.0f}/s for {arguments.seconds:g} s: p50 {figures['p50']:.2f} ms, "
        f"p99 {figures['p99']:.2f} ms, worst {figures['worst']:.1f} ms, {figures['errors']} errors; "
        f"memory {before:.0f} -> {memory(process):.0f} MiB"
    )


async def call_at_rate(address: str, pairs: list[Pair], per_second: int, seconds: float) -> dict[str, float]:
    """Calls at fixed times whether answers come or not; a call's time counts from when it was due."""
    waits: list[float] = []
    errors = 0
    async with AsyncRewardClient(address) as client:
        await client.score_batch(pairs[:1])

        async def call(due: float, pair: Pair) -> None:
            nonlocal errors
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                await client.score(*pair)
            except Exception:
                errors += 1
            waits.append(time.perf_counter() - due)

        start = time.perf_counter() + 0.5
        total = round(per_second * seconds)
        async with asyncio.TaskGroup() as group:
            for number in range(total):
                due = start + number / per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter() - 0.1))
                group.create_task(call(due, pairs[number % len(pairs)]))
        took = time.perf_counter() - start
    waits.sort()
    milliseconds = {"p50": median(waits), "p99": waits[int(0.99 * len(waits))], "worst": waits[-1]}
    return {name: 1e3 * value for name, value in milliseconds.items()} | {"rate": total / took, "errors": errors}


def time_retrieval(client: RewardClient, arguments: argparse.Namespace) -> None:
    """With texts that were never embedded, then with the same again."""
    collection = load_collection(arguments.collection, arguments.split)
    queries = list(collection.queries.values())
    examples = load_examples(sorted(Path("data").glob("*.jsonl")))
    chosen = random.Random(0)
    # Each line of an expansion gets a word of the query, so that QMD keeps it, and a number, so that it is new.
    jobs = [
        (query, "".join(f"{kind}: {text} {query.split()[0]} {number}\n" for kind, text in loaded.example.output))
        for number, (query, loaded) in enumerate(
            zip(chosen.choices(queries, k=300), chosen.choices(examples, k=300), strict=True)
        )
    ]
    new = rate(lambda: client.score_retrievals(jobs, collection.name), len(jobs))
    known = max(rate(lambda: client.score_retrievals(jobs, collection.name), len(jobs)) for _ in range(ROUNDS))
    size = len(collection.documents)
    print(f"ScoreRetrieval, {size:,} documents: {new:.0f}/s with new texts, {known:.0f}/s with known ones")


def rate(work: Callable[[], object], count: int) -> float:
    """Items a second, of one run."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def memory(process: psutil.Process) -> float:
    """Resident MiB of a process and its children."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


@contextmanager
def service(
    arguments: argparse.Namespace, workers: int, collection: Path | None = None
) -> Iterator[tuple[psutil.Process, RewardClient]]:
    """With a collection that is not in the cache yet, it is ready after minutes."""
    config = {"server": {"port": arguments.port, "max_message_bytes": 2**27}, "workers": workers}
    if collection:
        config["collections"] = [{"path": str(collection.resolve()), "split": arguments.split}]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reward.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "reward_service", "--config", str(path)]
        with Path(os.devnull).open("w") as nowhere:
            process = subprocess.Popen(command, stderr=nowhere)
        try:
            with RewardClient(f"127.0.0.1:{arguments.port}", deadline=120) as client:
                client.wait_ready(1_800)
                client.score_batch([("tea", "lex: tea")] * BATCH)
                yield psutil.Process(process.pid), client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())

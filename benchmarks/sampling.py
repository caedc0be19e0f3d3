"""Tokens a second of the inference service: what QMD's sampling costs beside simpler ones.

Starts the service with a model folder or GGUF file and asks it for answers to the eval queries, many at once.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evaluator.evalset import load_eval_queries
from evaluator.models import open_model
from qmd_rpc.inference import InferenceClient
from qmd_rpc.processes import die_with_parent
from qmd_schema.contract import QMD_DECODE, Decode, prompt_text

DECODES = {
    "greedy": Decode(temperature=0.0, top_k=0, top_p=1.0, presence_penalty=0.0),
    "temperature": Decode(top_k=0, top_p=1.0, presence_penalty=0.0),
    "and top-k, top-p": Decode(presence_penalty=0.0),
    "and presence penalty (QMD's)": QMD_DECODE,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder or GGUF file")
    parser.add_argument("--config", type=Path, default=Path("configs/cpu/inference.yaml"), help="default: %(default)s")
    parser.add_argument("--queries", type=Path, default=Path("evals/queries.jsonl"), help="default: %(default)s")
    parser.add_argument("--answers", type=int, default=192, help="of each way of sampling (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=96, help="of an answer, at most (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8019)
    arguments = parser.parse_args()
    model = open_model(arguments.model.resolve())
    queries = [query.query for query in load_eval_queries(arguments.queries)]
    prompts = [prompt_text(queries[place % len(queries)], model.bos) for place in range(arguments.answers)]
    command = [sys.executable, "-m", "inference_service", "--config", str(arguments.config)]
    command += ["--model", str(model.path), "--port", str(arguments.port)]
    with tempfile.TemporaryFile() as log:
        service = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
        try:
            with InferenceClient(f"127.0.0.1:{arguments.port}") as client:
                client.wait_ready(600)
                print(f"{model.engine}, {arguments.answers} answers of at most {arguments.tokens} tokens\n")
                print("| sampling | grammar | tokens | seconds | tokens a second |\n|---|---|---|---|---|")
                client.generate(prompts, max_tokens=8, seed=0)
                for name, decode in DECODES.items():
                    report(client, prompts, name, decode, grammar=False, max_tokens=arguments.tokens)
                report(client, prompts, "QMD's", QMD_DECODE, grammar=True, max_tokens=arguments.tokens)
        finally:
            service.terminate()
            service.wait()
    return 0


def report(
    client: InferenceClient, prompts: list[str], name: str, decode: Decode, grammar: bool, max_tokens: int
) -> None:
    began = time.perf_counter()
    answers = client.generate(prompts, decode=decode, grammar=grammar, max_tokens=max_tokens, seed=1)
    seconds = time.perf_counter() - began
    tokens = sum(len(answer.token_ids) for [answer] in answers)
    print(
        f"| {name} | {'yes' if grammar else 'no'} | {tokens:,} | {seconds:.1f} | {tokens / seconds:.0f} |", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())

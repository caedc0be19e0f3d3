"""What is written beside the weights: model cards, an Ollama Modelfile, a request for llama.cpp's server."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from publisher.acceptance import Acceptance
from publisher.config import PublisherConfig
from publisher.gguf import GgufFile
from publisher.parity import fell_back
from publisher.plot import gains_svg
from publisher.questions import PROBE_QUERY
from publisher.registry import Publication
from qmd_schema.client_config import generate_lines
from qmd_schema.contract import (
    GRAMMAR,
    QMD_CONTRACT,
    QMD_DECODE,
    SYSTEM_PROMPT,
    TURN_END,
    TURN_START,
    prompt_text,
    user_text,
)
from qmd_schema.verdicts import Verdict

TAGS = ["qmd", "query-expansion", "information-retrieval"]
OLLAMA_PROMPT = "{{ .Prompt }}"


@dataclass(frozen=True)
class Published:
    """What the cards of one publication are about."""

    config: PublisherConfig
    publication: Publication
    verdict: Verdict
    measured: list[GgufFile]
    """Every GGUF file that was made, those left out of the publication too."""
    bos_token: str | None
    """The tokenizer's."""
    adapters: list[str]
    """Repository suffixes of the adapters."""
    data_files: list[str]
    acceptance: Acceptance | None = None
    """What the QMD client made of the files, where it was measured."""

    @property
    def gguf(self) -> list[GgufFile]:
        """The files that are published."""
        return [file for file in self.measured if file.quantisation in self.publication.gguf]

    @property
    def default_gguf(self) -> GgufFile:
        return next(file for file in self.gguf if file.quantisation == self.publication.default_quantisation)


def texts(published: Published) -> dict[str, str]:
    """Every text file of a publication, by repository name and file name: "qmd-query-expansion-135M/README.md"."""
    name = published.config.name
    return {
        f"{name}/README.md": _render("model.md.j2", published, metadata=_model_metadata(published)),
        f"{name}/gains.svg": gains_svg(published.verdict.gains, published.verdict.minimum_effect),
        f"{name}-gguf/README.md": _render("gguf.md.j2", published, metadata=_gguf_metadata(published)),
        f"{name}-gguf/Modelfile": modelfile(published.default_gguf.name, published.bos_token),
        f"{name}-gguf/completion.json": completion_request(PROBE_QUERY, published.bos_token),
        f"{name}-gguf/grammar.gbnf": GRAMMAR,
        f"{name}-gguf/parity.json": json.dumps([asdict(file.parity) for file in published.measured], indent=2) + "\n",
        **{
            f"{name}-{suffix}/README.md": _render(
                "adapter.md.j2", published, metadata=_adapter_metadata(suffix, published), suffix=suffix
            )
            for suffix in published.adapters
        },
        f"{published.config.data_name}/README.md": _render(
            "data.md.j2", published, metadata=_data_metadata(published.config)
        ),
    }


def adapter_base(suffix: str, config: PublisherConfig, adapters: Iterable[str]) -> str:
    """The repository an adapter was trained on: the base model, or for a later stage the SFT adapter merged into it."""
    return f"{config.repository}-sft" if suffix != "sft" and "sft" in adapters else config.base.name


def modelfile(gguf_name: str, bos_token: str | None) -> str:
    """An Ollama Modelfile with QMD's prompt and sampling. Ollama takes no GBNF grammar."""
    parameters = {
        "temperature": QMD_DECODE.temperature,
        "top_k": QMD_DECODE.top_k,
        "top_p": QMD_DECODE.top_p,
        "min_p": 0,
        "presence_penalty": QMD_DECODE.presence_penalty,
        "repeat_penalty": 1,
        "repeat_last_n": QMD_DECODE.penalty_window,
        "num_predict": QMD_DECODE.max_tokens,
        "num_ctx": QMD_DECODE.context_tokens,
        "stop": TURN_END,
    }
    lines = [f"FROM ./{gguf_name}", f'TEMPLATE """{prompt_text(OLLAMA_PROMPT, bos_token)}"""']
    lines += [f"PARAMETER {key} {value}" for key, value in parameters.items()]
    return "\n".join(lines) + "\n"


def completion_request(query: str, bos_token: str | None) -> str:
    """The body of a POST to /completion of llama.cpp's server: QMD's prompt, grammar and sampling."""
    body = {
        "prompt": prompt_text(query, bos_token),
        "grammar": GRAMMAR,
        "temperature": QMD_DECODE.temperature,
        "top_k": QMD_DECODE.top_k,
        "top_p": QMD_DECODE.top_p,
        "min_p": 0,
        "presence_penalty": QMD_DECODE.presence_penalty,
        "repeat_last_n": QMD_DECODE.penalty_window,
        "n_predict": QMD_DECODE.max_tokens,
    }
    return json.dumps(body, indent=2) + "\n"


def _model_metadata(published: Published) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    verdict = published.verdict
    figures = dict(verdict.figures.get("candidate", {}))
    figures |= {f"gain in nDCG@10, {name}": gain.mean for name, gain in verdict.gains.items()}
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Query expansion for QMD",
            dataset_type="qmd-foundry-evals",
            dataset_name="QMD Foundry's evaluation queries and judged collections",
            dataset_revision=verdict.data_sha256,
            metric_type=name,
            metric_value=value,
        )
        for name, value in figures.items()
    ]
    config = published.config
    return ModelCardData(
        model_name=config.name,
        base_model=config.base.name,
        license=config.base.licence,
        language="en",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
        datasets=[f"{config.namespace}/{config.data_name}"],
        eval_results=results,
    ).to_yaml()


def _gguf_metadata(published: Published) -> str:
    from huggingface_hub import ModelCardData

    return ModelCardData(
        base_model=published.config.repository,
        base_model_relation="quantized",
        license=published.config.base.licence,
        language="en",
        pipeline_tag="text-generation",
        tags=[*TAGS, "gguf"],
    ).to_yaml()


def _adapter_metadata(suffix: str, published: Published) -> str:
    from huggingface_hub import ModelCardData

    return ModelCardData(
        base_model=adapter_base(suffix, published.config, published.adapters),
        base_model_relation="adapter",
        license=published.config.base.licence,
        language="en",
        library_name="peft",
        pipeline_tag="text-generation",
        tags=[*TAGS, "lora"],
    ).to_yaml()


def _data_metadata(config: PublisherConfig) -> str:
    from huggingface_hub import DatasetCardData

    return DatasetCardData(license=config.data_licence, language="en", tags=TAGS).to_yaml()


def _render(template: str, published: Published, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "number": lambda value: f"{value:.4g}"}
    return environment.get_template(template).render(
        config=published.config,
        publication=published.publication,
        verdict=published.verdict,
        gguf=published.gguf,
        measured=published.measured,
        fell_back=fell_back,
        index_lines=generate_lines(f"/absolute/path/to/{published.default_gguf.name}"),
        default_gguf=published.default_gguf,
        adapters=published.adapters,
        adapter_base=adapter_base,
        data_files=published.data_files,
        acceptance=published.acceptance,
        decode=QMD_DECODE,
        qmd_contract=QMD_CONTRACT,
        grammar=GRAMMAR,
        system_prompt=SYSTEM_PROMPT,
        user_text=user_text("{query}"),
        doubled_bos=published.bos_token == TURN_START,
        query=PROBE_QUERY,
        **values,
    )


def _cell(value: Any) -> str:
    """A value in a cell of a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ")

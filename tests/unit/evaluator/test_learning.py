from pathlib import Path

from evaluator.gate import OVER_NONE, OVER_REFERENCE
from qmd_schema.verdicts import Interval, ModelIdentity, Verdict
from support.benchmarks import load_benchmark

learning = load_benchmark("learning")
MODEL = ModelIdentity(reference="model", sha256="0" * 64)


def verdict(gain: float) -> Verdict:
    """Of a model that gains `gain` over the one it was trained from, and as much more over no expansion."""

    def interval(mean: float) -> Interval:
        return Interval(mean=mean, lower=mean - 0.01, upper=mean + 0.02, queries=40)

    gains = {
        OVER_REFERENCE: gain,
        OVER_NONE: 2 * gain,
        f"{OVER_REFERENCE}: notes": gain,
        f"{OVER_NONE}: notes": 2 * gain,
    }
    figures = {"rubric": 0.9, "valid_outputs": 0.97, "lex_without_match": 0.25, "tokens": 80.0}
    return Verdict(
        id="1",
        created="2026-01-01T00:00:00Z",
        outcome="PASS",
        reasons=["It gained."],
        candidate=MODEL,
        reference_kind="deployed",
        reference=MODEL,
        gains={name: interval(mean) for name, mean in gains.items()},
        p_value=0.01,
        minimum_effect=0.01,
        queries_to_decide=None,
        guards=[],
        figures={"candidate": figures, "reference": figures | {"rubric": 0.8}},
        seeds=[1],
        qmd_contract="1",
        data_sha256="0" * 64,
        config_sha256="0" * 64,
        code_version="1",
    )


def test_the_table_tells_gains_with_their_bounds_and_what_is_kept_of_form() -> None:
    lines = learning.table({"60-steps/1": verdict(0.03), "60-steps/2": verdict(-0.02)})
    rows = [line for line in lines if line.startswith(("| 60-steps", "| (trained from)"))]
    assert rows == [
        "| 60-steps/1 | +0.030 (+0.020, +0.050) | +0.030 (+0.020, +0.050) |",
        "| 60-steps/2 | -0.020 (-0.030, +0.000) | -0.020 (-0.030, +0.000) |",
        "| 60-steps/1 | +0.060 (+0.050, +0.080) | +0.060 (+0.050, +0.080) |",
        "| 60-steps/2 | -0.040 (-0.050, -0.020) | -0.040 (-0.050, -0.020) |",
        "| (trained from) | 80.0 | 0.970 | 25% | 80 |",
        "| 60-steps/1 | 90.0 | 0.970 | 25% | 80 |",
        "| 60-steps/2 | 90.0 | 0.970 | 25% | 80 |",
    ]


def test_the_plot_is_an_image(tmp_path: Path) -> None:
    learning.draw(tmp_path / "gains.png", {"one": verdict(0.03), "two": verdict(0.01)})
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_the_config_asks_the_collections_given_and_keeps_what_it_measures_apart(root: Path, tmp_path: Path) -> None:
    folder = root / "evals/collections/notes"
    config = learning.on_collections(root / "configs/cpu/evaluator.yaml", tmp_path, [folder], "dev", None, 3)
    assert [(each.path, each.split) for each in config.collections] == [(folder, "dev")]
    assert config.seeds == [1, 2, 3] and config.queries_per_collection is None
    assert config.store.parent == tmp_path

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evaluator.config import EvaluatorConfig
from evaluator.evalset import EvalSet
from evaluator.gate import Decision, decide
from evaluator.measures import by_source, measure_model, measure_none, model_figures, retrieval_figures, side_values
from evaluator.models import Model
from evaluator.paired import GateInputs
from evaluator.report import Side, engine_parity, render_report
from evaluator.retrieval import Retrieval
from evaluator.store import Answer
from evaluator.verdict import make_verdict
from qmd_schema.verdicts import ModelIdentity, SignedVerdict, load_signing_key, sign

HOSTILE = "lex: leaves <script>alert(1)</script> tomato\nvec: \"quoted\" & 'tomato' <img src=x>\n"

MISLEADING = (
    "vec: a compost heap on straw when frost comes\nvec: turn the heap of compost on straw when frost is over\n"
)


def side(label: str, text: str, eval_set: EvalSet, retrieval: Retrieval, config: EvaluatorConfig) -> Side:
    model = Model(Path("/models") / label, label[0] * 64, None, frozenset(), 1000, 500)
    answers = [
        Answer(key, seed, grammar, text, 40, True, False)
        for grammar, keys in ((True, eval_set.texts), (False, eval_set.eval_texts))
        for key in keys
        for seed in (config.seeds if grammar else config.seeds[:1])
    ]
    measured = measure_model(model, answers, [1.0, 2.0], eval_set, retrieval, config)
    return Side(label, model.engine, answers, measured, model_figures(measured, eval_set.slices, 0.95))


class Rendered:
    def __init__(self, sides: dict[str, Side], decision: Decision, signed: SignedVerdict, page: str):
        self.sides = sides
        self.decision = decision
        self.signed = signed
        self.html = page


@pytest.fixture(scope="module")
def rendered(eval_set: EvalSet, tiny_config: EvaluatorConfig) -> Rendered:
    with Retrieval(eval_set, tiny_config.search_cache, lambda *_: None) as retrieval:
        sides = {
            "candidate": side("candidate", HOSTILE, eval_set, retrieval, tiny_config),
            "reference": side("deployed model", MISLEADING, eval_set, retrieval, tiny_config),
        }
        none = measure_none(eval_set, retrieval)
        values = [side_values(sides[name].measured) for name in sides]
        decision = decide(
            GateInputs(*values, none=by_source(none["ndcg@10"]), slices=eval_set.slices, first_deployment=False),
            tiny_config.gate,
        )
        figures = {name: s.figures for name, s in sides.items()} | {"none": retrieval_figures(none)}
        models = [
            ModelIdentity(reference="/models/<b>candidate</b>", sha256="c" * 64),
            ModelIdentity(reference="/models/deployed", sha256="d" * 64, revision="r12"),
        ]
        verdict = make_verdict("session-1", *models, decision, figures, eval_set.sha256, tiny_config)
        signed = sign(verdict, load_signing_key(tiny_config.signing_key))
        page = render_report(signed, decision, sides, none["ndcg@10"], eval_set, retrieval, tiny_config)
    return Rendered(sides, decision, signed, page)


def test_engines_are_compared_where_they_differ(rendered, tiny_config):
    assert engine_parity(rendered.sides, rendered.decision, tiny_config.gate) == []
    same = replace(rendered.sides["candidate"], engine="llama.cpp")
    ndcg, rubric = engine_parity(
        {"candidate": same} | {"reference": rendered.sides["candidate"]}, rendered.decision, tiny_config.gate
    )
    assert rubric["change"].lower == rubric["change"].upper == 0 and rubric["agree"]
    assert ndcg["change"] == rendered.decision.gains["over reference"]
    assert ndcg["agree"] == (max(abs(ndcg["change"].lower), abs(ndcg["change"].upper)) <= ndcg["margin"])


def test_the_page_leads_with_the_outcome_and_every_reason(rendered):
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", rendered.html, flags=re.DOTALL)
    assert text.index(rendered.decision.outcome) < text.index("What changed")
    for reason in rendered.decision.reasons:
        assert " ".join(reason.split()) in " ".join(text.replace("&#39;", "'").split())


def test_the_page_names_every_guard_slice_and_hash(rendered):
    for guard in rendered.decision.guards:
        assert guard.name in rendered.html
    for name in (*rendered.decision.slices, "c" * 64, "d" * 64, rendered.signed.public_key, "r12"):
        assert name in rendered.html


def test_text_of_models_and_queries_stays_text(rendered):
    assert "<script" not in rendered.html and "<img" not in rendered.html and "<b>candidate" not in rendered.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in rendered.html


def test_the_page_needs_nothing_from_elsewhere(rendered):
    tags = "".join(re.findall(r"<[^>]*>", rendered.html))
    assert not re.search(r"\b(src|srcset|href|data)=", tags)
    assert not re.search(r"https?://|url\(|@import", rendered.html)


def test_the_page_knows_dark_mode_and_phones(rendered):
    assert "prefers-color-scheme: dark" in rendered.html
    assert 'name="viewport"' in rendered.html and "@media (max-width" in rendered.html


def test_every_tag_that_is_opened_is_closed(rendered):
    void = {"meta", "br", "img", "hr", "rect", "line", "link", "input"}
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, _attributes: object) -> None:
            if tag not in void and tag not in ("li", "dt", "dd"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in void and tag not in ("li", "dt", "dd"):
                assert open_tags.pop() == tag

    Checker().feed(rendered.html)
    assert not open_tags


def test_moved_queries_show_both_expansions_and_what_found_the_document(rendered):
    moved = rendered.html.split("Queries that moved")[1].split("Provenance")[0]
    assert "Candidate" in moved and "Deployed model" in moved
    assert "at rank" in moved and "query vec" in moved


def test_a_figure_that_was_not_measured_is_a_dash(rendered):
    row = re.search(r"<tr><td>rubric score</td>(.*?)</tr>", rendered.html, flags=re.DOTALL)
    assert row is not None and row.group(1).count("–") == 1


def test_a_verdict_of_a_base_model_has_no_revision(rendered, tiny_config, eval_set):
    base = replace(rendered.decision, outcome="FAIL")
    identity = ModelIdentity(reference="/m", sha256="e" * 64)
    verdict = make_verdict("session-2", identity, identity, base, {}, eval_set.sha256, tiny_config)
    assert verdict.reference_kind == "base"
    assert rendered.signed.verdict.reference_kind == "deployed"


def test_the_verdict_holds_the_interval_of_every_collection_and_slice(rendered):
    verdict = rendered.signed.verdict
    assert verdict.gains == rendered.decision.gains
    assert verdict.slices == rendered.decision.slices and verdict.slices.keys() == {"short", "named_entity", "only"}


PROBE = """
<iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe><pre></pre>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  page.querySelectorAll("details").forEach(part => part.open = true);
  const style = part => page.defaultView.getComputedStyle(part);
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const brightness = colour => channels(colour).slice(0, 3)
    .map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = part => {{
    const colour = style(part).backgroundColor;
    return channels(colour)[3] === 0 && part.parentElement ? behind(part.parentElement) : colour;
  }};
  const contrast = part => {{
    const [low, high] = [brightness(style(part).color), brightness(behind(part))].sort((a, b) => a - b);
    return (high + .05) / (low + .05);
  }};
  const texts = [...page.body.querySelectorAll("*")].filter(part =>
    part.checkVisibility() && [...part.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  document.querySelector("pre").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    page: brightness(behind(page.body)),
    texts: texts.length,
    contrast: Math.min(...texts.map(contrast)),
    smallest: Math.min(...texts.map(part => parseFloat(style(part).fontSize))),
    plotted: [...page.querySelectorAll(".track .range, svg rect")].filter(p => p.getBoundingClientRect().height).length,
    outside: [...page.querySelectorAll(".track .mean")].filter(dot => {{
      const [own, all] = [dot.getBoundingClientRect(), dot.parentElement.getBoundingClientRect()];
      return own.right < all.left || own.left > all.right;
    }}).length,
  }});
}});
</script>
"""
PHONE, DESKTOP = 360, 1200
"""CSS pixels."""
DARK, LIGHT = 0, 1
"""Chromium's numbers of the colour schemes that a user may prefer."""


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_a_browser_shows_the_page_whole_and_readable(rendered, tmp_path, width, scheme):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path = tmp_path / "probe.html"
    path.write_text("<!doctype html>" + PROBE.format(width=width, page=html.escape(rendered.html)), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", f"--window-size={DESKTOP + 100},1000"]
    command += [f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"<pre>(\{.*?\})</pre>", done.stdout)
    assert found is not None, done.stdout[-2000:]
    seen = json.loads(found[1])
    assert seen["width"] <= width
    assert (seen["page"] < 0.1) == (scheme == DARK)
    assert seen["contrast"] >= 4.5 and seen["smallest"] >= 12
    assert seen["texts"] > 100 and seen["plotted"] > 5 and seen["outside"] == 0

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.client_config import generate_lines, index_path, with_generate
from qmd_schema.errors import ConfigError

GGUF = "/models/qmd-query-expansion-135M-0123abcd-Q8_0.gguf"

FULL = """\
# my notes
global_context: "All of it: work & play"

collections:
  notes:   # the big one
    path: ~/notes
    pattern: "**/*.md"
    ignore: [archive/**, "*.tmp"]
models:
  embed: hf:org/embedder/model.gguf   # small
  generate: /old/model.gguf  # replace me
  rerank: null
editor_uri: vscode://file/{path}:{line}
"""


def models_of(text: str) -> object:
    return yaml.safe_load(text)["models"]


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"QMD_CONFIG_DIR": "/q", "XDG_CONFIG_HOME": "/x"}, "/q/index.yml"),
        ({"XDG_CONFIG_HOME": "/x"}, "/x/qmd/index.yml"),
        ({"XDG_CONFIG_HOME": "", "QMD_CONFIG_DIR": ""}, str(Path.home() / ".config/qmd/index.yml")),
    ],
)
def test_the_config_is_looked_for_where_qmd_looks(environment: dict[str, str], path: str) -> None:
    assert str(index_path(environment)) == path


@pytest.mark.parametrize("path", [GGUF, "/a b/m.gguf", "/ä: #x/m.gguf", '/quo"te/\\m.gguf', "/%&*!/m.gguf"])
def test_the_lines_say_the_path_whatever_is_in_it(path: str) -> None:
    assert yaml.safe_load(generate_lines(path)) == {"models": {"generate": path}}


def test_only_the_models_path_changes() -> None:
    assert with_generate(FULL, GGUF) == FULL.replace("/old/model.gguf", GGUF)


def test_a_model_is_added_to_those_that_are_there() -> None:
    without = FULL.replace("  generate: /old/model.gguf  # replace me\n", "")
    assert with_generate(without, GGUF) == without.replace("  embed:", f"  generate: {GGUF}\n  embed:")


def test_models_are_added_behind_everything_else() -> None:
    text = "collections: {}\n# the end\n"
    assert with_generate(text, GGUF) == f"{text}models:\n  generate: {GGUF}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet",
        "---\n",
        "{}\n",
        "# above\n{}  # behind\n# below\n",
        "collections: {}",
        "models:\n",
        "models:  # later\ncollections: {}\n",
        "models: null\n",
        "models: ~  # none\n",
        "models: {}\n",
        "models: {embed: a, rerank: b}  # flow\n",
        "{collections: {}, models: {embed: a}}\n",
        "{collections: {}}\n",
        '"models":\n    embed: a\n',
        "models:\n  generate:\n  embed: a\n",
        "models:\n  generate: >-\n    /old/\n    model.gguf\n  embed: a\n",
        "models:\n  generate: 'it''s old'\n",
        "a: 1\r\nmodels:\r\n  embed: a\r\n",
        "a: |\n  text\n  models: no\n",
        "models:\n  generate:  # none yet\n  embed: a\n",
        "a: 1\n...\n",
    ],
)
def test_every_way_to_write_it_is_edited(text: str) -> None:
    edited = with_generate(text, GGUF)
    before = yaml.safe_load(text) or {}
    wanted = before | {"models": (before.get("models") or {}) | {"generate": GGUF}}
    assert yaml.safe_load(edited) == wanted
    assert all(comment in edited for comment in re.findall("#.*", text))
    assert with_generate(edited, GGUF) == edited


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "models: [a]\n", "models: text\n", "a: [\n", "models: &m {generate: a}\ncopy: *m\n"],
    ids=["list", "list of models", "scalar", "no YAML", "alias"],
)
def test_a_text_that_cannot_be_edited_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(ConfigError, match=r"(?s)index\.yml: .*foundry qmd install"):
        with_generate(text, GGUF)


keys = st.text("abcxyz_- é", min_size=1, max_size=6).map(str.strip).filter(bool)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=12))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
configs = st.dictionaries(keys, values, max_size=4)
models = st.none() | st.dictionaries(st.sampled_from(["embed", "rerank", "generate"]), st.text(max_size=9))


@given(configs, models, configs, st.sampled_from([True, False, None]), st.booleans())
def test_a_config_of_any_content_keeps_it(
    before: dict[str, object], own: dict[str, str] | None, after: dict[str, object], flow: bool | None, has_models: bool
) -> None:
    value = before | ({"models": own} if has_models else {}) | after
    text = yaml.safe_dump(value, default_flow_style=flow, sort_keys=False, allow_unicode=True)
    edited = with_generate(text, GGUF)
    said = yaml.safe_load(text)  # not quite the value: PyYAML loses some odd line breaks
    assert yaml.safe_load(edited) == said | {"models": (said.get("models") or {}) | {"generate": GGUF}}
    assert with_generate(edited, GGUF) == edited


@given(
    st.lists(
        st.sampled_from(["# a comment", "", "x: 1  # one", "y:", "  - z: [1, 2]  # two", "  # three"]), unique=True
    )
)
def test_every_line_that_is_not_the_models_stays(lines: list[str]) -> None:
    order = ["x: 1  # one", "y:", "  - z: [1, 2]  # two"]
    kept = [line for line in lines if line not in order] + [line for line in order if line in lines]
    if "y:" not in kept and order[2] in kept:
        kept.remove(order[2])
    text = "".join(f"{line}\n" for line in kept)
    edited = with_generate(text, GGUF)
    assert edited.startswith(text)
    assert edited[len(text) :] == generate_lines(GGUF)

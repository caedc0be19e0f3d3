import json
import re
from pathlib import Path

from qmd_reward.rubric import score


def test_the_worked_example_of_the_guide_is_what_the_code_gives(root: Path) -> None:
    guide = (root / "docs/scoring.md").read_text(encoding="utf-8")
    example, printed = (json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", guide))
    assert json.loads(json.dumps(score(**example).as_row())) == printed
    better = score(example["query"], example["expansion"].replace("eviction overview", "pod eviction"))
    assert f"would have\n{better.total} points" in guide

"""The rubric written down rule by rule, for plainness alone: what `qmd_reward.rubric` is checked and timed against.

Every rule is a function of the texts that it speaks of; none hands anything on to the next. `score(query, expansion)`
gives the fields of `RubricScore.as_row()`.
"""

import re
from collections import Counter
from typing import Any

from qmd_reward.words import (
    FILLER_WORDS,
    GENERIC_PHRASES,
    KEY_TERM_STOPWORDS,
    QUERY_VERB_STOPWORDS,
    STOPWORDS,
)

PUNCTUATION = ".,!?:;()[]\"'"


def score(query: str, expansion: str) -> dict[str, Any]:
    text = expansion.strip().replace("<|im_end|>", "").strip()
    used_thinking = "<think>" in text and "</think>" in text
    if used_thinking:
        text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    only = re.search(r"\s+/only:(lex|vec|hyde)\s*$", query, re.IGNORECASE)
    only_mode = only.group(1).lower() if only else None
    for leak in ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "\nassistant\n", "\nuser\n"]:
        if leak in text:
            return failed(only_mode, "A chat marker or a further turn is left in the text.")
    lines: dict[str, list[str]] = {"lex": [], "vec": [], "hyde": []}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line:
            continue
        if not line.startswith(("lex:", "vec:", "hyde:")):
            return failed(only_mode, f"Line {number} begins with none of lex:, vec:, hyde:.")
        kind, _, body = line.partition(":")
        lines[kind].append(body.strip())
    think_bonus = 0 if used_thinking else 20
    if only:
        return score_only(query[: only.start()], only_mode, lines, think_bonus)
    return score_normal(query, lines, think_bonus)


def score_normal(query: str, lines: dict[str, list[str]], think_bonus: int) -> dict[str, Any]:
    lex, vec, hyde = lines["lex"], lines["vec"], lines["hyde"]
    deductions = []

    format_points = 10
    for kind in ["lex", "vec"]:
        if lines[kind]:
            format_points += 10
        else:
            deductions.append(f"There is no {kind} line.")

    diversity = 0
    if lex and vec:
        diversity += 10
    else:
        deductions.append("Lex and vec lines do not complement each other: one kind is missing.")
    if len(lex) + len(vec) >= 2:
        diversity += 5
    for kind in ["lex", "vec"]:
        pairs = pairs_alike(query, lines[kind])
        diversity += max(0, 5 - 2 * len(pairs))
        deductions += [f"{kind} lines {i} and {j} are too much alike." for i, j in pairs]
    echo_points = 5
    for kind, cost in [("lex", 10), ("vec", 3)]:
        for i, line in enumerate(lines[kind], start=1):
            if is_echo(query, line):
                echo_points -= cost
                deductions.append(f"{kind} line {i} repeats the query.")
    diversity += max(-10, echo_points)

    hyde_points = 0
    if hyde:
        hyde_points += 5
        length = len(hyde[0])
        if 50 <= length <= 200:
            hyde_points += 5
        else:
            hyde_points += 2 if length < 50 else 0
            deductions.append(f"The hyde line has {length} characters; 50 to 200 are best.")
        if "\n" not in hyde[0]:
            hyde_points += 5
        hyde_points += max(0, 5 - repetition_penalty(hyde[0]))

    quality = 5
    if lex and vec:
        if sum(len(line) for line in lex) / len(lex) <= sum(len(line) for line in vec) / len(vec):
            quality += 5
        else:
            deductions.append("Lex lines are longer than vec lines on average.")
    if vec:
        quality += 5 if all(" " in line and len(line) > 15 for line in vec) else 2
    if lex:
        if all(keeps_key_terms(query, line) for line in lex):
            quality += 5
        elif any(keeps_key_terms(query, line) for line in lex):
            quality += 2
        else:
            deductions.append("No lex line holds a key term of the query.")
        quality -= 3 * filler_lines(query, lex, deductions)
    if len(query.split()) >= 2 and any('"' in line for line in lex):
        quality += 3

    entities = find_entities(query)
    entity = 0
    if not entities:
        entity = 10
    elif lex:
        if all(holds_entity(query, line) for line in lex):
            entity += 15
        elif any(holds_entity(query, line) for line in lex):
            entity += 5
        else:
            entity -= 30
            deductions.append("No lex line names an entity of the query.")
        joined = " ".join(lex + vec).lower()
        missing = [name for name in sorted(entities) if name not in joined]
        if missing:
            entity -= 20 * len(missing)
            deductions.append(f"Neither lex nor vec lines name {', '.join(missing)}.")
        entity -= 15 * generic_lines(lex, deductions)
        if any(holds_entity(query, line) for line in vec):
            entity += 5

    total = format_points + diversity + hyde_points + quality + entity + think_bonus
    max_possible = 140 if hyde else 120
    percentage = max(0.0, min(100.0, total / max_possible * 100))
    if any(is_echo(query, line) for line in lex):
        percentage = min(50.0, percentage)
        deductions.append("A lex line repeats the query, so the percentage is capped at 50.")
    return {
        "score": max(0.0, min(1.0, max(0, total) / max_possible)),
        "format": format_points,
        "diversity": diversity,
        "hyde": hyde_points,
        "quality": quality,
        "entity": max(0, entity),
        "think_bonus": think_bonus,
        "total": max(0, total),
        "max_possible": max_possible,
        "percentage": round(percentage, 1),
        "rating": rating(percentage),
        "only_mode": None,
        "deductions": tuple(deductions),
        "entities": tuple(sorted(entities)),
    }


def score_only(query: str, only: str, lines: dict[str, list[str]], think_bonus: int) -> dict[str, Any]:
    wanted = lines[only]
    if not wanted:
        return failed(only, f"There is no {only} line, and the query asks for nothing else.")
    deductions = []

    others = sum(len(lines[kind]) for kind in lines if kind != only)
    if others:
        deductions.append(f"The query asks for {only} lines only, and {others} are of another kind.")

    diversity = 15
    pairs = pairs_alike(query, wanted)
    if len(wanted) >= 2:
        diversity += max(0, 15 - 5 * len(pairs))
    deductions += [f"{only} lines {i} and {j} are too much alike." for i, j in pairs]
    for i, line in enumerate(wanted, start=1):
        if is_echo(query, line):
            diversity -= 5
            deductions.append(f"{only} line {i} repeats the query.")

    quality = 10
    if only == "lex":
        if all(keeps_key_terms(query, line) for line in wanted):
            quality += 5
        if generic_lines(wanted, deductions) == 0:
            quality += 5
        quality -= 3 * filler_lines(query, wanted, deductions)
    elif only == "vec":
        if all(" " in line and len(line) > 15 for line in wanted):
            quality += 10
        else:
            quality += 5
            deductions.append("A vec line is a single word or has under 16 characters.")
    else:
        length = len(wanted[0])
        if 50 <= length <= 200:
            quality += 10
        else:
            quality += 5 if 30 <= length <= 300 else 0
            deductions.append(f"The hyde line has {length} characters; 50 to 200 are best.")

    entities = find_entities(query)
    entity = 10
    if entities:
        if all(holds_entity(query, line) for line in wanted):
            entity += 10
        elif any(holds_entity(query, line) for line in wanted):
            entity += 5
        else:
            entity = 0
            deductions.append(f"No {only} line names an entity of the query.")

    total = max(0, 30 - 10 * others) + max(0, diversity) + quality + entity + think_bonus
    percentage = max(0.0, min(100.0, total / 120 * 100))
    return {
        "score": max(0.0, min(1.0, max(0, total) / 120)),
        "format": max(0, 30 - 10 * others),
        "diversity": max(0, diversity),
        "hyde": 0,
        "quality": quality,
        "entity": entity,
        "think_bonus": think_bonus,
        "total": max(0, total),
        "max_possible": 120,
        "percentage": round(percentage, 1),
        "rating": rating(percentage),
        "only_mode": only,
        "deductions": tuple(deductions),
        "entities": tuple(sorted(entities)),
    }


def failed(only_mode: str | None, reason: str) -> dict[str, Any]:
    parts = ["format", "diversity", "hyde", "quality", "entity", "think_bonus", "total"]
    return {
        "score": 0.0,
        **dict.fromkeys(parts, 0),
        "max_possible": 100,
        "percentage": 0.0,
        "rating": "Failed",
        "only_mode": only_mode,
        "deductions": (reason,),
        "entities": (),
    }


def rating(percentage: float) -> str:
    if percentage >= 80:
        return "Excellent"
    if percentage >= 60:
        return "Good"
    if percentage >= 40:
        return "Acceptable"
    if percentage >= 20:
        return "Poor"
    return "Failed"


def find_entities(query: str) -> set[str]:
    entities = set()
    previous_was_entity = False
    for position, raw in enumerate(query.split()):
        word = raw.strip(PUNCTUATION)
        if not word:
            previous_was_entity = False
            continue
        lowered = word.lower()
        is_base = False
        is_chained = False
        if word.isupper() and len(word) >= 2:
            is_base = True
        elif word[0].isupper() and lowered not in KEY_TERM_STOPWORDS:
            is_base = position > 0 or lowered not in QUERY_VERB_STOPWORDS
        elif len(word) >= 2:
            has_mark = any(mark in word for mark in ".+-#@")
            is_base = has_mark or (word[0].isupper() and any(c.isupper() for c in word[1:]))
        if not is_base and not word[0].isupper() and previous_was_entity and lowered not in KEY_TERM_STOPWORDS:
            is_chained = True
        if is_base or is_chained:
            entities.add(lowered)
        previous_was_entity = is_base
    return entities


def keeps_key_terms(query: str, line: str) -> bool:
    key_terms = {word for word in query.lower().split() if word not in KEY_TERM_STOPWORDS}
    return not key_terms or any(word in key_terms for word in line.lower().split())


def holds_entity(query: str, line: str) -> bool:
    entities = find_entities(query)
    return not entities or any(entity in line.lower() for entity in entities)


def filler_lines(query: str, lex: list[str], deductions: list[str]) -> int:
    query_words = set(query.lower().split())
    found = set()
    count = 0
    for line in lex:
        words = {word for word in line.lower().split() if word in FILLER_WORDS and word not in query_words}
        found |= words
        count += bool(words)
    if found:
        deductions.append(f"Filler in lex lines: {', '.join(sorted(found))}.")
    return count


def generic_lines(lex: list[str], deductions: list[str]) -> int:
    generic = [line for line in lex if is_generic(line)]
    if generic:
        deductions.append(f"Lex lines that say nothing of the subject: {', '.join(generic)}.")
    return len(generic)


def is_generic(line: str) -> bool:
    lowered = line.lower().strip()
    for phrase in GENERIC_PHRASES:
        if phrase in lowered or lowered.startswith(phrase.split()[0]):
            rest = lowered
            for word in phrase.split():
                rest = rest.replace(word, "", 1).strip()
            if len(rest) < 3:
                return True
    return False


def pairs_alike(query: str, lines: list[str]) -> list[tuple[int, int]]:
    least = 3 if len(query.split()) >= 5 else 2
    return [
        (i, j)
        for i in range(1, len(lines) + 1)
        for j in range(i + 1, len(lines) + 1)
        if not are_diverse(lines[i - 1], lines[j - 1], least)
    ]


def are_diverse(first: str, second: str, least: int) -> bool:
    a, b = first.lower().strip(), second.lower().strip()
    if a == b or a in b or b in a:
        return False
    return len(set(a.split()) ^ set(b.split())) >= least


def is_echo(query: str, line: str) -> bool:
    q, text = query.lower().strip(), line.lower().strip()
    return text == q or (q in text and len(text) < len(q) + 10)


def repetition_penalty(text: str) -> int:
    words = re.findall(r"\b\w+\b", text.lower())
    counts = Counter(word for word in words if len(word) > 2 and word not in STOPWORDS)
    return sum(2 * (count - 2) for count in counts.values() if count >= 3)

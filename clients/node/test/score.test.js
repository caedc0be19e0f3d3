import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { toScore } from "../src/score.js";
import { SENTENCES, sentence } from "../src/sentences.js";
import { python } from "./service.js";

const SCRIPT = `
import json
from typing import get_args
from qmd_schema.deductions import Deduction, Reason
print(json.dumps({reason: str(Deduction(reason, "lex", (2, 5), 7, ("tea", "pot"))) for reason in get_args(Reason)}))
`;

test("each reason says what the Python client says", () => {
  const theirs = JSON.parse(execFileSync(python, ["-c", SCRIPT], { encoding: "utf8" }));
  const ours = Object.keys(SENTENCES).map((reason) => [
    reason,
    sentence({ reason, kind: "lex", lines: [2, 5], count: 7, texts: ["tea", "pot"] }),
  ]);
  assert.deepEqual(Object.fromEntries(ours), theirs);
});

test("what a newer service sends beyond the shipped contract is handed on", () => {
  const reasons = [{ reason: 99, kind: "KIND_UNSPECIFIED", lines: [], count: 0, texts: [] }];
  const score = toScore({ rating: 6, onlyMode: "", entities: [], reasons, newPart: 3 });
  assert.deepEqual(score, {
    rating: 6,
    onlyMode: null,
    newPart: 3,
    entities: [],
    reasons: [{ reason: 99, kind: null, lines: [], count: 0, texts: [], sentence: "Reason 99." }],
  });
});

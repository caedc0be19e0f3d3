/** @import { Score } from "../types/index.js" */

/**
 * A score as lines for a person.
 *
 * @param {Score} score
 * @returns {string}
 */
export function report(score) {
  const rows = [
    ["format", score.format],
    ["diversity", score.diversity],
    ["hyde", score.hyde],
    ["quality", score.quality],
    ["entity", score.entity],
    ["think bonus", score.thinkBonus],
    ["total", `${score.total} of ${score.maxPossible}`],
    ["rating", `${score.rating} (${score.percentage.toFixed(1)} %)`],
  ];
  const parts = rows.map(([name, value]) => `${String(name).padEnd(12)}${value}`);
  return [...parts, ...score.reasons.map(({ sentence }) => `- ${sentence}`)].join("\n");
}

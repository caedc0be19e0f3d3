/** @import { Deduction } from "../types/index.js" */

/** What each reason says; a test holds it equal to what the Python client says. */
export const SENTENCES = /** @type {Record<string, string>} */ ({
  chat_marker_left: "A chat marker or a further turn is left in the text.",
  line_without_kind: "Line {lines} begins with none of lex:, vec:, hyde:.",
  wanted_kind_missing: "There is no {kind} line, and the query asks for nothing else.",
  kind_missing: "There is no {kind} line.",
  unwanted_kind: "The query asks for {kind} lines only, and {count} are of another kind.",
  not_complementary: "Lex and vec lines do not complement each other: one kind is missing.",
  lines_alike: "{kind} lines {lines} are too much alike.",
  query_repeated: "{kind} line {lines} repeats the query.",
  percentage_capped: "A lex line repeats the query, so the percentage is capped at {count}.",
  hyde_length: "The hyde line has {count} characters; 50 to 200 are best.",
  lex_longer_than_vec: "Lex lines are longer than vec lines on average.",
  key_terms_lost: "No lex line holds a key term of the query.",
  filler: "Filler in lex lines: {texts}.",
  vec_too_short: "A vec line is a single word or has under 16 characters.",
  no_line_with_entity: "No {kind} line names an entity of the query.",
  entities_lost: "Neither lex nor vec lines name {texts}.",
  generic_lines: "Lex lines that say nothing of the subject: {texts}.",
});

/**
 * A deduction in words; of a reason newer than this package, its name.
 *
 * @param {Omit<Deduction, "sentence">} deduction
 * @returns {string}
 */
export function sentence({ reason, kind, lines, count, texts }) {
  const values = /** @type {Record<string, string>} */ ({
    kind: String(kind),
    lines: lines.join(" and "),
    count: String(count),
    texts: texts.join(", "),
  });
  const template = SENTENCES[reason] ?? `Reason ${reason}.`;
  return template.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

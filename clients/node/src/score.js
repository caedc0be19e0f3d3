import { sentence } from "./sentences.js";

/** @import { Deduction, Score } from "../types/index.js" */

/**
 * A Score of the wire as the client hands it out: plain names, null for a kind that is not given.
 *
 * @param {any} message
 * @returns {Score}
 */
export function toScore({ rating, onlyMode, entities, reasons, ...parts }) {
  return {
    ...parts,
    rating: plain(rating, "RATING_", (name) => name[0] + name.slice(1).toLowerCase()),
    onlyMode: onlyMode || null,
    entities,
    reasons: reasons.map(toDeduction),
  };
}

/**
 * @param {any} message
 * @returns {Deduction}
 */
function toDeduction({ reason, kind, ...rest }) {
  const deduction = {
    reason: plain(reason, "REASON_"),
    kind: kind === "KIND_UNSPECIFIED" ? null : plain(kind, "KIND_"),
    ...rest,
  };
  return { ...deduction, sentence: sentence(deduction) };
}

/**
 * "REASON_LINES_ALIKE" → "lines_alike". A value newer than the shipped proto file has no name and stays its number.
 *
 * @param {string | number} value
 * @param {string} prefix
 */
function plain(value, prefix, spelling = (/** @type {string} */ name) => name.toLowerCase()) {
  return typeof value === "number" ? value : spelling(value.slice(prefix.length));
}

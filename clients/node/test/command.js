import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

export const QUERY = "postgres connection pool";
export const EXPANSION =
  "hyde: A connection pool keeps PostgreSQL sessions open.\nlex: postgres pool\nlex: postgres pool\n";

/**
 * Runs qmd-score with EXPANSION as its input.
 *
 * @param {string[]} options
 */
export async function qmdScore(options) {
  const command = fileURLToPath(new URL("../bin/qmd-score.js", import.meta.url));
  const child = spawn(process.execPath, [command, ...options]);
  child.stdin.end(EXPANSION);
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]);
  return { out, err, code };
}

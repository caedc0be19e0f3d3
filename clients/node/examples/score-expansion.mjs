// Expands a query with QMD's own expandQuery and a local model, then scores what QMD would search with.
//
//   node score-expansion.mjs MODEL.gguf QUERY [ADDRESS]
import { RewardClient } from "@qmd-foundry/reward";
import { createStore } from "@tobilu/qmd";
import { mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [model, query, address] = process.argv.slice(2);
if (!model || !query) throw new Error("Usage: node score-expansion.mjs MODEL.gguf QUERY [ADDRESS]");

// QMD deletes a model file that is not GGUF, so none is handed over.
const magic = Buffer.alloc(4);
readSync(openSync(model, "r"), magic);
if (magic.toString() !== "GGUF") throw new Error(`${model} is not a GGUF file.`);
// QMD runs no model while CI is set.
delete process.env.CI;

// A store of its own, since QMD remembers expansions by query.
const folder = mkdtempSync(join(tmpdir(), "score-expansion-"));
const config = { collections: {}, models: { generate: resolve(model) } };
const store = await createStore({ dbPath: join(folder, "index.sqlite"), config });
const client = new RewardClient({ address });
try {
  const lines = await store.expandQuery(query);
  if (lines.length === 0) throw new Error("QMD returned no line: the model failed, or only repeated the query.");
  const expansion = lines.map((line) => `${line.type}: ${line.query}\n`).join("");
  const { rating, percentage, reasons } = await client.score(query, expansion);
  console.log(`${expansion}\n${rating}, ${percentage} %`);
  for (const { sentence } of reasons) console.log(`- ${sentence}`);
} finally {
  client.close();
  await store.close();
  rmSync(folder, { recursive: true });
}

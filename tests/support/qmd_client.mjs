// node qmd_client.mjs APP FOLDER: searches the pages of FOLDER/pages with the QMD of APP/node_modules.
//
// FOLDER/requests.json: {lex: [line], texts: [text], documents: [[{type, query}]], queries: [{query, lines}]}
// FOLDER/answers.json: {lex: [[{id, score}]], texts: [{vector, hits: [{id, score}]}], documents: [[id]], queries: [[id]],
//                       pages: [{id, chunks: [{pos, vector}]}] as they were indexed}
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [app, folder] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(join(app, "node_modules", file)).href);

// ggml's threads spin while they wait for each other, which on a busy machine takes longer than one thread alone.
const { Llama } = await load("node-llama-cpp/dist/index.js");
const loadModel = Llama.prototype.loadModel;
Llama.prototype.loadModel = function (...options) {
  this.maxThreads = 1;
  return loadModel.apply(this, options);
};
const { createStore } = await load("@tobilu/qmd/dist/index.js");
const { formatQueryForEmbedding, hybridQuery } = await load("@tobilu/qmd/dist/store.js");

const store = await createStore({
  dbPath: join(folder, "index.sqlite"),
  config: { collections: { docs: { path: join(folder, "pages"), pattern: "**/*.md" } } },
});
await store.update();
const embedded = await store.embed();
if (embedded.errors) throw new Error(`${embedded.errors} chunks were not embedded: ${JSON.stringify(embedded.failures)}`);

const id = (path) => path.split("/").at(-1).replace(/\.md$/, "");
const scored = (hits) => hits.map((hit) => ({ id: id(hit.filepath), score: hit.score }));
const ids = (hits) => hits.map((hit) => id(hit.file));
const requests = JSON.parse(readFileSync(join(folder, "requests.json"), "utf-8"));
const answers = { lex: [], texts: [], documents: [], queries: [], pages: [] };
for (const line of requests.lex) {
  answers.lex.push(scored(await store.searchLex(line, { limit: 20 })));
}
for (const text of requests.texts) {
  const { embedding } = await store.internal.llm.embed(formatQueryForEmbedding(text));
  answers.texts.push({ vector: embedding, hits: scored(await store.searchVector(text, { limit: 20 })) });
}
for (const queries of requests.documents) {
  answers.documents.push(ids(await store.search({ queries, limit: 10, rerank: false })));
}
for (const { query, lines } of requests.queries) {
  store.internal.expandQuery = async () => lines;
  answers.queries.push(ids(await hybridQuery(store.internal, query, { limit: 10, skipRerank: true })));
}
const chunks = store.internal.db.prepare(`SELECT v.pos, vec_to_json(e.embedding) AS vector FROM content_vectors v
  JOIN vectors_vec e ON e.hash_seq = v.hash || '_' || v.seq WHERE v.hash = ? ORDER BY v.seq`);
for (const page of store.internal.db.prepare("SELECT path, hash FROM documents ORDER BY id").all()) {
  const own = chunks.all(page.hash).map(({ pos, vector }) => ({ pos, vector: JSON.parse(vector) }));
  answers.pages.push({ id: id(page.path), chunks: own });
}
writeFileSync(join(folder, "answers.json"), JSON.stringify(answers));
process.exit(0);

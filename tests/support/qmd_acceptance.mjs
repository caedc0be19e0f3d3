// node qmd_acceptance.mjs APP FOLDER: what QMD's own code makes of a model, for the queries of FOLDER/requests.json.
//
// FOLDER/index.yml: QMD's config with the collections and the models; FOLDER/index.sqlite: made where it is absent.
// requests.json: {queries: [{collection, id, text}]}. Of each query a line is added to FOLDER/answers.jsonl; those that
// have one are not asked again:
// {collection, id, model, raw, lines: [{type, query}], tokens, ms, wrapper, prompt, plain: [id], expanded: [id]}
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const DEPTH = 20;
const [app, folder] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(join(app, "node_modules", file)).href);

const { Llama, LlamaChatSession } = await load("node-llama-cpp/dist/index.js");
const { loadModel } = Llama.prototype;
// ggml's threads spin while they wait for each other, which on a busy machine takes longer than one thread alone.
Llama.prototype.loadModel = function (...options) {
  this.maxThreads = 1;
  return loadModel.apply(this, options);
};
// QMD keeps only what its filter leaves; what the model wrote passes here.
let written = null;
const { prompt } = LlamaChatSession.prototype;
LlamaChatSession.prototype.prompt = async function (text, options) {
  const chatHistory = [...this.getChatHistory(), { type: "user", text }, { type: "model", response: [] }];
  const { contextText } = this.chatWrapper.generateContextState({ chatHistory });
  const raw = await prompt.call(this, text, options);
  const tokens = this.model.tokenize(raw).length;
  const { wrapperName: wrapper } = this.chatWrapper;
  written = { model: this.model.filename, raw, tokens, wrapper, prompt: contextText.toString() };
  return raw;
};

const { createStore } = await load("@tobilu/qmd/dist/index.js");
const { setDefaultLlamaCpp } = await load("@tobilu/qmd/dist/llm.js");
const { hybridQuery } = await load("@tobilu/qmd/dist/store.js");
const store = await createStore({ dbPath: join(folder, "index.sqlite"), configPath: join(folder, "index.yml") });
// As QMD's own command does: it cuts pages by the tokens of the default's embedder, else one that it would download.
setDefaultLlamaCpp(store.internal.llm);
await store.update();
const embedded = await store.embed();
if (embedded.errors) throw new Error(`${embedded.errors} chunks were not embedded: ${JSON.stringify(embedded.failures)}`);

const output = join(folder, "answers.jsonl");
const key = ({ collection, id }) => `${collection}/${id}`;
const rows = existsSync(output) ? readFileSync(output, "utf-8").split("\n").filter(Boolean).map(JSON.parse) : [];
const done = new Set(rows.map(key));
const { queries } = JSON.parse(readFileSync(join(folder, "requests.json"), "utf-8"));
const expand = store.internal.expandQuery;
const search = async ({ collection, text }, lines) => {
  store.internal.expandQuery = async () => lines;
  const hits = await hybridQuery(store.internal, text, { collection: [collection], limit: DEPTH, skipRerank: true });
  return hits.map((hit) => hit.file.split("/").at(-1).replace(/\.md$/, ""));
};
// The first expansion also loads the model, which is no part of its time.
if (queries.some((query) => !done.has(key(query)))) await store.internal.llm.ensureGenerateModel();
for (const query of queries) {
  if (done.has(key(query))) continue;
  written = null;
  const begun = performance.now();
  const lines = await expand(query.text);
  const ms = performance.now() - begun;
  if (written === null) throw new Error(`QMD did not ask the model about ${key(query)}: is its answer in the cache?`);
  const { collection, id } = query;
  const found = { plain: await search(query, []), expanded: await search(query, lines) };
  appendFileSync(output, `${JSON.stringify({ collection, id, lines, ms, ...written, ...found })}\n`);
}
process.exit(0);

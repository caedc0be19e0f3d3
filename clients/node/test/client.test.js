import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { InvalidRequestError, OptionError, RewardClient, UnavailableError } from "../src/index.js";
import { freePort, project, RewardProcess } from "./service.js";

const VECTORS = `${project}../shared/data/rubric/vectors.jsonl`;

/** @type {RewardProcess} */
let service;
/** @type {RewardClient} */
let client;

before(async () => {
  service = new RewardProcess(await freePort());
  await service.ready();
  client = new RewardClient({ address: service.address, deadlineMs: 120_000 });
});

after(async () => {
  client.close();
  await service.end();
});

test("every published case scored in a batch has the published score", { skip: !existsSync(VECTORS) }, async () => {
  const rows = readFileSync(VECTORS, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const scores = await client.scoreBatch(rows);
  const flat = scores.map(({ thinkBonus, maxPossible, onlyMode, reasons, ...rest }, index) => ({
    query: rows[index].query,
    expansion: rows[index].expansion,
    ...rest,
    think_bonus: thinkBonus,
    max_possible: maxPossible,
    only_mode: onlyMode,
    deductions: reasons.length,
  }));
  assert.deepEqual(flat, rows);
});

test("one score is the same alone and in a batch", async () => {
  const [query, expansion] = ["green tea", "hyde: Green tea is steeped at 80 degrees.\nlex: green tea\n"];
  assert.deepEqual(await client.score(query, expansion), (await client.scoreBatch([{ query, expansion }]))[0]);
});

test("the service says what it scores with", async () => {
  const info = await client.getInfo();
  assert.deepEqual([info.rubricVersion, info.qmdContract], ["1", "2.8"]);
});

test("a method of the contract without one of its own is called by its name", async () => {
  assert.deepEqual(await client.call("GetInfo", {}), await client.getInfo());
  await assert.rejects(client.call("GetWeather", {}), TypeError);
});

test("a request outside the limits is refused with field, limit and service", async () => {
  await assert.rejects(client.score("", "lex: tea"), (error) => {
    assert(error instanceof InvalidRequestError);
    assert.equal(error.code, "INVALID_ARGUMENT");
    assert.equal(error.address, service.address);
    assert.match(error.message, /^reward service at 127.*: query: .*1 to 2,000 characters\. Correct the request\.$/);
    return true;
  });
});

test("a bad pair in a batch is named by its index", async () => {
  const pairs = [
    { query: "tea", expansion: "lex: tea" },
    { query: "tea", expansion: "lex: \0" },
  ];
  await assert.rejects(client.scoreBatch(pairs), /requests\[1\]\.expansion: .*NUL/);
});

for (const expansion of /** @type {any[]} */ ([undefined, null, 5, "lex: tea \ud83c"])) {
  test(`an expansion of ${JSON.stringify(expansion)} is refused, not scored as another text`, async () => {
    await assert.rejects(client.score("tea", expansion), InvalidRequestError);
    await assert.rejects(client.scoreBatch([{ query: "tea", expansion }]), /requests\[0\]\.expansion: .*well-formed/);
  });
}

test("an address where nothing listens is an error that says so, after the retries", async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const lost = new RewardClient({ address });
  await assert.rejects(lost.score("tea", "lex: tea"), (error) => {
    assert(error instanceof UnavailableError);
    assert(error.message.startsWith(`reward service at ${address}: not reachable (`));
    assert.match(error.message, /ECONNREFUSED.*foundry serve reward/);
    return true;
  });
  lost.close();
});

test("a client goes on when the service is killed and started again", async () => {
  const before = await client.score("tea", "lex: green tea");
  await service.end("SIGKILL");
  service.start();
  await service.ready();
  assert.deepEqual(await client.score("tea", "lex: green tea"), before);
});

test("an unusable deadline is refused before any call", () => {
  assert.throws(() => new RewardClient({ deadlineMs: Number("soon") }), OptionError);
});

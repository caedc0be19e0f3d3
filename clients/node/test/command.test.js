import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { RewardClient } from "../src/index.js";
import { EXPANSION, QUERY, qmdScore } from "./command.js";
import { freePort, RewardProcess } from "./service.js";

/** @type {RewardProcess} */
let service;

before(async () => {
  service = new RewardProcess(await freePort());
  await service.ready();
});

after(() => service.end());

test("it prints parts, rating and deductions", async () => {
  const { out, err, code } = await qmdScore(["--query", QUERY, "--address", service.address]);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(out, /^format {6}\d+\n/);
  assert.match(out, /^total {7}\d+ of 1[024]0\nrating {6}[A-Z][a-z]+ \(\d+\.\d %\)$/m);
  assert.match(out, /^- .+/m);
});

test("--json prints what the client returns", async () => {
  const client = new RewardClient({ address: service.address, deadlineMs: 120_000 });
  const expected = await client.score(QUERY, EXPANSION);
  client.close();
  const { out } = await qmdScore(["--query", QUERY, "--address", service.address, "--json"]);
  assert.deepEqual(JSON.parse(out), expected);
});

for (const [mistake, options, message] of /** @type {[string, string[], RegExp][]} */ ([
  ["no query", [], /^--query: is missing/],
  ["an unknown option", ["--qurey", "tea"], /Unknown option '--qurey'/],
  ["a certificate that is not there", ["--query", "tea", "--ca", "/nowhere.pem"], /^tls\.ca: cannot be read: ENOENT/],
  ["an empty query", ["--query", ""], /query: is empty/],
])) {
  test(`${mistake} is one message and exit code 2`, async () => {
    const { out, err, code } = await qmdScore([...options, "--address", service.address]);
    assert.deepEqual([out, code], ["", 2]);
    assert.match(err, message);
    assert.doesNotMatch(err, /\n +at /);
  });
}

test("a service that is not there is one message and exit code 1", async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const { err, code } = await qmdScore(["--query", QUERY, "--address", address, "--deadline", "1000"]);
  assert.equal(code, 1);
  assert.match(err, new RegExp(`^reward service at ${address}: .*\n$`));
});

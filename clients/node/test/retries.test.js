import { status } from "@grpc/grpc-js";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http2";
import { test } from "node:test";
import { AuthenticationError, DeadlineError, RewardClient, RewardError, UnavailableError } from "../src/index.js";
import { standIn } from "./standin.js";

/**
 * Calls a server that fails `failures` times with `code`. Returns the error or null, and the attempts it saw.
 *
 * @param {{ code: number, failures: number, pairs?: import("../types/index.js").Pair[] }} options
 */
async function attempts({ code, failures, pairs = [{ query: "tea", expansion: "lex: tea" }] }) {
  let seen = 0;
  const server = await standIn({
    ScoreBatch(/** @type {any} */ call, /** @type {any} */ answer) {
      if (seen++ < failures) answer({ code, details: "not now" });
      else answer(null, { scores: call.request.requests.map(() => ({ score: 0.5, rating: "RATING_POOR" })) });
    },
  });
  const client = new RewardClient({ address: server.address });
  try {
    const scores = await client.scoreBatch(pairs);
    assert.equal(scores.length, pairs.length);
    return { error: null, seen };
  } catch (error) {
    return { error: /** @type {RewardError} */ (error), seen };
  } finally {
    client.close();
    server.stop();
  }
}

test("a call that finds the service unavailable twice succeeds at the third attempt", async () => {
  assert.deepEqual(await attempts({ code: status.UNAVAILABLE, failures: 2 }), { error: null, seen: 3 });
});

test("a batch of several MiB is retried as well", async () => {
  const pairs = Array(512).fill({ query: "tea", expansion: `lex: ${"x".repeat(16_000)}` });
  assert.deepEqual(await attempts({ code: status.UNAVAILABLE, failures: 1, pairs }), { error: null, seen: 2 });
});

test("a service that stays unavailable is tried five times", async () => {
  const { error, seen } = await attempts({ code: status.UNAVAILABLE, failures: 99 });
  assert.equal(seen, 5);
  assert(error instanceof UnavailableError);
});

for (const code of [status.INTERNAL, status.RESOURCE_EXHAUSTED, status.UNAUTHENTICATED, status.ABORTED]) {
  test(`${status[code]} is not retried`, async () => {
    const { error, seen } = await attempts({ code, failures: 99 });
    assert.equal(seen, 1);
    assert.equal(error?.code, status[code]);
    assert.equal(error instanceof AuthenticationError, code === status.UNAUTHENTICATED);
  });
}

test("a call whose server dies while it runs is answered by the one that takes its place", async (context) => {
  const dying = createServer();
  /** @type {import("node:net").Socket} */
  let socket;
  dying.on("connection", (opened) => (socket = opened));
  dying.on("stream", () => {
    socket.destroy();
    dying.close(async () => {
      const GetInfo = (/** @type {any} */ _call, /** @type {any} */ answer) => answer(null, { build: "second" });
      const second = await standIn({ GetInfo }, port);
      context.after(second.stop);
    });
  });
  await once(dying.listen(0, "127.0.0.1"), "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (dying.address());
  const client = new RewardClient({ address: `127.0.0.1:${port}` });
  context.after(() => client.close());
  assert.equal((await client.getInfo()).build, "second");
});

test("a call that is not answered ends at its deadline", async (context) => {
  const silent = await standIn({ GetInfo() {} });
  context.after(silent.stop);
  const client = new RewardClient({ address: silent.address, deadlineMs: 200 });
  context.after(() => client.close());
  await assert.rejects(client.getInfo(), (error) => {
    assert(error instanceof DeadlineError);
    assert.match(error.message, /no answer within 200 ms\. .*deadlineMs/);
    return true;
  });
});

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { AuthenticationError, OptionError, RewardClient, UnavailableError } from "../src/index.js";
import { makeCertificates } from "./certificates.js";
import { QUERY, qmdScore } from "./command.js";
import { freePort, RewardProcess } from "./service.js";

/** @import { ClientOptions } from "../types/index.js" */

const [OLD, NEW] = ["0123456789abcdef-old", "0123456789abcdef-new"];
const folder = mkdtempSync(join(tmpdir(), "qmd-reward-tls-"));
/** @param {string} name */
const file = (name) => join(folder, name);
const tls = { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key") };

/** @type {RewardProcess} */
let service;

before(async () => {
  makeCertificates(folder);
  writeFileSync(file("tokens"), `${OLD}\n${NEW}\n`);
  const files = { certificate: file("server.pem"), key: file("server.key"), client_ca: file("ca.pem") };
  // YAML takes JSON.
  writeFileSync(file("reward.yaml"), JSON.stringify({ server: { port: 8010, tls: files, tokens: file("tokens") } }));
  service = new RewardProcess(await freePort(), file("reward.yaml"));
  await service.ready({ tls, token: OLD });
});

after(async () => {
  await service.end();
  rmSync(folder, { recursive: true });
});

/** @param {ClientOptions} options */
async function info(options) {
  const client = new RewardClient({ address: service.address, deadlineMs: 120_000, ...options });
  try {
    return await client.getInfo();
  } finally {
    client.close();
  }
}

test("a client with a known certificate and token is answered", async () => {
  assert.equal((await info({ tls, token: OLD })).rubricVersion, "1");
});

test("a token that is rotated in its file is used by the next call", async () => {
  const tokenFile = file("token");
  writeFileSync(tokenFile, "0123456789abcdef-expired\n");
  const client = new RewardClient({ address: service.address, tls, tokenFile });
  await assert.rejects(client.getInfo(), AuthenticationError);
  writeFileSync(tokenFile, `# made today\n${NEW}\n`);
  assert.equal((await client.getInfo()).rubricVersion, "1");
  client.close();
});

test("without a token the error says which option to set", async () => {
  await assert.rejects(info({ tls }), /wants a valid bearer token\. Set token or tokenFile/);
});

test("qmd-score takes the same files", async () => {
  const files = ["--ca", tls.ca, "--cert", tls.cert, "--key", tls.key, "--token-file", file("tokens")];
  const { out, err, code } = await qmdScore(["--query", QUERY, "--address", service.address, ...files]);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(out, /^rating/m);
});

describe("a connection that TLS does not allow", { concurrency: true }, () => {
  for (const [who, options] of /** @type {[string, ClientOptions][]} */ ([
    ["a client that trusts another authority", { tls: { ...tls, ca: file("stranger.pem") } }],
    ["a client without a certificate", { tls: { ca: tls.ca } }],
    ["a client that speaks plain text", {}],
  ])) {
    test(`${who} is told what to check`, async () => {
      await assert.rejects(info({ token: OLD, ...options }), (error) => {
        assert(error instanceof UnavailableError);
        assert.match(error.message, /not reachable \([^\n]+\)\. .*(certificates|set tls)/);
        return true;
      });
    });
  }
});

describe("an option that cannot be used is named before any call", () => {
  for (const [option, mistake, options] of /** @type {[string, string, ClientOptions][]} */ ([
    ["tls.ca", "a file that is not there", { tls: { ca: file("absent.pem") } }],
    ["tls.ca", "a file without a certificate", { tls: { ca: file("server.key") } }],
    ["tls.key", "a key of another certificate", { tls: { cert: tls.cert, key: file("stranger.key") } }],
    ["tls", "a certificate without its key", { tls: { cert: tls.cert } }],
    ["tokenFile", "a file that is not there", { tokenFile: file("absent") }],
    ["tokenFile", "a file without a token", { tokenFile: file("empty") }],
    ["tokenFile", "a file beside a token", { token: OLD, tokenFile: file("tokens") }],
    ["token", "two words", { token: "two words" }],
  ])) {
    test(`${option}: ${mistake}`, () => {
      writeFileSync(file("empty"), "\n");
      assert.throws(
        () => new RewardClient(options),
        (error) => error instanceof OptionError && error.option === option,
      );
    });
  }
});

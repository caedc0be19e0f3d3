import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("../", import.meta.url));

test("the package holds what it runs with, and nothing else", () => {
  const options = ["pack", "--dry-run", "--json", "--ignore-scripts"];
  const [{ files }] = JSON.parse(execFileSync("npm", options, { cwd: here, encoding: "utf8" }));
  const folders = new Set(files.map((/** @type {{ path: string }} */ { path }) => path.split("/")[0]));
  assert.deepEqual([...folders].sort(), [
    "LICENSE",
    "README.md",
    "bin",
    "examples",
    "package.json",
    "proto",
    "src",
    "types",
  ]);
});

test("the contract that it ships is the project's", () => {
  const path = "proto/foundry/v1/reward.proto";
  assert.equal(readFileSync(`${here}${path}`, "utf8"), readFileSync(`${here}../../${path}`, "utf8"));
});

test("the lock file names versions and hashes, no server", () => {
  assert.doesNotMatch(readFileSync(`${here}package-lock.json`, "utf8"), /"resolved"/);
});

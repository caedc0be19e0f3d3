#!/usr/bin/env node
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { InvalidRequestError, OptionError, RewardClient } from "../src/index.js";
import { report } from "../src/report.js";

// Who runs a command cannot act on a deprecation in one of its libraries.
process.noDeprecation = true;

const HELP = `Usage: qmd-score --query QUERY [options] < expansion.txt

Scores one query expansion, as the model wrote it, with the QMD Foundry reward service.

  --query QUERY        the search query, with its "/only:KIND" ending where it has one
  --address HOST:PORT  where the service listens (default 127.0.0.1:8010)
  --deadline MS        milliseconds the call may take, retries included (default 30000)
  --token-file FILE    file that holds the bearer token
  --tls                speak TLS; the three options below imply it
  --ca FILE            PEM certificate authorities to trust instead of Node's own
  --cert FILE          PEM certificate of this client (mTLS), with --key
  --key FILE           PEM private key of --cert
  --json               print the score as JSON
  --help               print this

Exit codes: 0 scored, 1 the service failed, 2 a mistake in the command or the request.`;

function parse() {
  const string = /** @type {const} */ ({ type: "string" });
  const boolean = /** @type {const} */ ({ type: "boolean" });
  return parseArgs({
    options: {
      query: string,
      address: string,
      deadline: string,
      "token-file": string,
      tls: boolean,
      ca: string,
      cert: string,
      key: string,
      json: boolean,
      help: boolean,
    },
  }).values;
}

async function main() {
  const { query, ca, cert, key, ...options } = parse();
  if (options.help) return console.log(HELP);
  if (query === undefined) throw new OptionError("--query", "is missing; see qmd-score --help.");
  if (process.stdin.isTTY) throw new OptionError("standard input", "is a terminal; pipe the expansion into it.");
  const client = new RewardClient({
    address: options.address,
    deadlineMs: options.deadline === undefined ? undefined : Number(options.deadline),
    tokenFile: options["token-file"],
    tls: options.tls || ca || cert || key ? { ca, cert, key } : undefined,
  });
  try {
    const score = await client.score(query, await text(process.stdin));
    console.log(options.json ? JSON.stringify(score) : report(score));
  } finally {
    client.close();
  }
}

main().catch((error) => {
  console.error(error.message);
  const theirs = error instanceof OptionError || error instanceof InvalidRequestError;
  process.exitCode = theirs || error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1;
});

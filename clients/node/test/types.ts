// Checked by `npm run types`, never run: the declarations are those of the code, and read as a caller would use them.
import type * as declared from "@qmd-foundry/reward";
import { RewardClient, UnavailableError } from "@qmd-foundry/reward";
import * as errors from "../src/errors.js";
import { RewardClient as Implemented } from "../src/client.js";

const client: declared.RewardClient = new Implemented({ tls: { ca: "ca.pem" }, tokenFile: "token" });
const constructors: (new (options?: declared.ClientOptions) => declared.RewardClient)[] = [Implemented, RewardClient];
const error: declared.RewardError = new errors.UnavailableError("127.0.0.1:8010", "UNAVAILABLE", "", "", null);
const option: declared.OptionError = new errors.OptionError("tls", "");

export async function use(): Promise<string> {
  const [first] = await client.scoreBatch([{ query: "tea", expansion: "lex: tea" }]);
  const rating: "Failed" | "Poor" | "Acceptable" | "Good" | "Excellent" | undefined = first?.rating;
  // @ts-expect-error: an expansion is text
  await client.score("tea", ["lex: tea"]);
  // @ts-expect-error: the option is deadlineMs
  new RewardClient({ deadline: 5 });
  return error instanceof UnavailableError ? error.remedy : `${rating} ${option.option} ${constructors.length}`;
}

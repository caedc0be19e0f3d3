// Copies what the package ships but the project keeps elsewhere. Runs on `npm ci` in a checkout and before `npm pack`.
import { cpSync } from "node:fs";

const project = new URL("../../../", import.meta.url);
const here = new URL("../", import.meta.url);

for (const path of ["proto/foundry/v1/reward.proto", "LICENSE"]) {
  cpSync(new URL(path, project), new URL(path, here));
}

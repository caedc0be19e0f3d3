import { loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";

/** @import { ServiceClientConstructor } from "@grpc/grpc-js" */

// Names in camel case, enums by name, and every field present: what a server leaves out has its default.
const definition = loadSync("foundry/v1/reward.proto", {
  includeDirs: [fileURLToPath(new URL("../proto/", import.meta.url))],
  enums: String,
  longs: Number,
  defaults: true,
});

/** The stub of the reward service, made from the proto file that the package ships. */
export const RewardService = /** @type {ServiceClientConstructor} */ (
  /** @type {any} */ (loadPackageDefinition(definition)).foundry.v1.RewardService
);

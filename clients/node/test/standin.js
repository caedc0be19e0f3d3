import { Server, ServerCredentials } from "@grpc/grpc-js";
import { promisify } from "node:util";
import { RewardService } from "../src/contract.js";

/** @import { UntypedServiceImplementation } from "@grpc/grpc-js" */

/**
 * A server of the same contract that fails as it is told to, as the real one cannot.
 *
 * @param {UntypedServiceImplementation} methods
 */
export async function standIn(methods, port = 0) {
  const server = new Server({ "grpc.max_receive_message_length": -1 });
  server.addService(RewardService.service, methods);
  const bind = promisify(server.bindAsync.bind(server));
  const bound = await bind(`127.0.0.1:${port}`, ServerCredentials.createInsecure());
  return { address: `127.0.0.1:${bound}`, stop: () => server.forceShutdown() };
}

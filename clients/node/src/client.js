import { Metadata } from "@grpc/grpc-js";
import { RewardService } from "./contract.js";
import { channelCredentials, tokenSource } from "./credentials.js";
import { explain, InvalidRequestError, OptionError } from "./errors.js";
import { toScore } from "./score.js";

/** @import { requestCallback } from "@grpc/grpc-js" */
/** @import { ClientOptions, Info, Pair, Score } from "../types/index.js" */

// Up to five attempts over about 7.5 s, long enough for a service to be started again; gRPC adds ±20 % jitter.
const RETRIES = {
  methodConfig: [
    {
      name: [{}],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.5s",
        maxBackoff: "4s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

const CHANNEL = {
  "grpc.service_config": JSON.stringify(RETRIES),
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1000,
  // A request that outgrows its buffer is not retried; a full batch of the longest requests is 100 MiB.
  "grpc.per_rpc_retry_buffer_size": 128 * 2 ** 20,
  "grpc.retry_buffer_size": 256 * 2 ** 20,
  // The server decides how long a message may be; a proxy in the environment is not for services.
  "grpc.max_receive_message_length": -1,
  "grpc.enable_http_proxy": 0,
};

export class RewardClient {
  /** @type {any} */
  #stub;
  #token;
  #connection;

  /** @param {ClientOptions} [options] */
  constructor({ address = "127.0.0.1:8010", deadlineMs = 30_000, token, tokenFile, tls } = {}) {
    if (!(deadlineMs > 0)) throw new OptionError("deadlineMs", `is ${deadlineMs}; wants milliseconds above 0.`);
    this.#connection = { address, deadlineMs, tls: Boolean(tls) };
    this.#token = tokenSource({ token, tokenFile });
    this.#stub = new RewardService(address, channelCredentials(tls), CHANNEL);
  }

  /**
   * @param {string} query
   * @param {string} expansion
   * @returns {Promise<Score>}
   */
  async score(query, expansion) {
    const pair = { query, expansion };
    this.#check(pair, "");
    return toScore((await this.call("Score", pair)).score);
  }

  /**
   * @param {readonly Pair[]} pairs
   * @returns {Promise<Score[]>}
   */
  async scoreBatch(pairs) {
    pairs.forEach((pair, index) => this.#check(pair, `requests[${index}].`));
    return (await this.call("ScoreBatch", { requests: pairs })).scores.map(toScore);
  }

  /** @returns {Promise<Info>} */
  getInfo() {
    return this.call("GetInfo", {});
  }

  /**
   * @param {string} method
   * @param {object} request
   * @returns {Promise<any>}
   */
  async call(method, request) {
    const { deadlineMs } = this.#connection;
    const definition = RewardService.service[method];
    if (!definition || definition.requestStream || definition.responseStream) {
      throw new TypeError(`RewardService has no unary method ${method}.`);
    }
    const metadata = new Metadata();
    if (this.#token) metadata.set("authorization", `Bearer ${this.#token()}`);
    const options = { deadline: Date.now() + deadlineMs };
    return new Promise((resolve, reject) => {
      /** @type {requestCallback<any>} */
      const answered = (error, response) => (error ? reject(explain(error, this.#connection)) : resolve(response));
      this.#stub[method](request, metadata, options, answered);
    });
  }

  close() {
    this.#stub.close();
  }

  /**
   * Refuses what the wire would change unnoticed: a missing text would arrive, and be scored, as an empty one.
   *
   * @param {Pair} pair
   * @param {string} where
   */
  #check({ query, expansion }, where) {
    for (const [field, text] of Object.entries({ query, expansion })) {
      if (typeof text === "string" && text.isWellFormed()) continue;
      const problem = `${where}${field}: ${typeof text === "string" ? "holds half a surrogate pair" : `is ${text}`}`;
      throw new InvalidRequestError(
        this.#connection.address,
        "INVALID_ARGUMENT",
        `${problem}; wants well-formed text`,
        "Correct the request.",
      );
    }
  }
}

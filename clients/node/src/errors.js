import { status } from "@grpc/grpc-js";

/** @import { ServiceError } from "@grpc/grpc-js" */

/** An option of the client that cannot be used. The message names the option, the problem and the remedy. */
export class OptionError extends Error {
  /**
   * @param {string} option such as "tls.ca"
   * @param {string} problem what is wrong with it, and what would be right
   * @param {ErrorOptions} [options]
   */
  constructor(option, problem, options) {
    super(`${option}: ${problem}`, options);
    this.name = "OptionError";
    this.option = option;
  }
}

/** A call that failed. The message names service, address, problem and remedy. */
export class RewardError extends Error {
  service = "reward";

  /**
   * @param {string} address
   * @param {string} code name of the gRPC status, such as "UNAVAILABLE"
   * @param {string} problem
   * @param {string} remedy
   * @param {unknown} [cause]
   */
  constructor(address, code, problem, remedy, cause) {
    super(`reward service at ${address}: ${problem.trim().replace(/\.$/, "")}. ${remedy}`.trim(), { cause });
    this.name = new.target.name;
    this.address = address;
    this.code = code;
    this.remedy = remedy;
  }
}

/** The service could not be reached, or went away, and stayed away for all retries. */
export class UnavailableError extends RewardError {}
/** No answer came within the deadline. */
export class DeadlineError extends RewardError {}
/** The request is not one that the service takes; the message names the field and its limit. */
export class InvalidRequestError extends RewardError {}
/** The service wants a token, or knows another one. */
export class AuthenticationError extends RewardError {}

/**
 * The error of a failed call, as the caller should read it.
 *
 * @param {ServiceError} error what grpc-js reported
 * @param {{ address: string, deadlineMs: number, tls: boolean }} connection
 * @returns {RewardError}
 */
export function explain(error, { address, deadlineMs, tls }) {
  const code = status[error.code];
  switch (error.code) {
    case status.UNAVAILABLE: {
      const hint = tls ? "check the address and the certificates" : "correct the address, or set tls if it speaks TLS";
      const remedy = `Start it with \`foundry serve reward\`; ${hint}.`;
      return new UnavailableError(address, code, `not reachable (${reason(error.details)})`, remedy, error);
    }
    case status.DEADLINE_EXCEEDED: {
      const remedy = "Read its log, or set a longer deadlineMs.";
      return new DeadlineError(address, code, `no answer within ${deadlineMs} ms`, remedy, error);
    }
    case status.INVALID_ARGUMENT:
    case status.NOT_FOUND:
      return new InvalidRequestError(address, code, error.details, "Correct the request.", error);
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return new AuthenticationError(address, code, error.details, "Set token or tokenFile to one it accepts.", error);
    case status.RESOURCE_EXHAUSTED:
      return new RewardError(address, code, error.details, "Send less at once, or try again later.", error);
    case status.UNIMPLEMENTED:
      return new RewardError(address, code, error.details, "Update the service, or correct the address.", error);
    default:
      return new RewardError(address, code, `${code}: ${error.details}`, "Read its log.", error);
  }
}

/**
 * "No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:8010. Resolution note: " → its middle.
 *
 * @param {string} details
 */
function reason(details) {
  return details
    .replace(/^.*Last error: (Error: )?/, "")
    .replace(/\.? Resolution note:.*$/, "")
    .replace(/\s+/g, " ");
}

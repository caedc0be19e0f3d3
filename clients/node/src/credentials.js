import { credentials } from "@grpc/grpc-js";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { OptionError } from "./errors.js";

/** @import { ChannelCredentials } from "@grpc/grpc-js" */
/** @import { ClientOptions, TlsOptions } from "../types/index.js" */

/**
 * Plain text without `tls`; with it, the server's certificate is verified, and ours is shown when given (mTLS).
 *
 * @param {TlsOptions | undefined} tls
 * @returns {ChannelCredentials}
 */
export function channelCredentials(tls) {
  if (!tls) return credentials.createInsecure();
  const { ca, cert, key } = tls;
  if (!cert !== !key) throw new OptionError("tls", "cert and key come together; one of them is missing.");
  const [authorities, certificate, privateKey] = [
    ca ? pem("tls.ca", ca) : null,
    cert ? pem("tls.cert", cert) : null,
    key ? read("tls.key", key) : null,
  ];
  return attempt("tls.key", "does not work with tls.cert", () =>
    credentials.createSsl(authorities, privateKey, certificate),
  );
}

/**
 * What gives the token at each call, so that a rotated file is noticed; undefined where there is none.
 *
 * @param {Pick<ClientOptions, "token" | "tokenFile">} options
 * @returns {(() => string) | undefined}
 */
export function tokenSource({ token, tokenFile }) {
  if (token === undefined && tokenFile === undefined) return undefined;
  if (token !== undefined && tokenFile !== undefined) {
    throw new OptionError("tokenFile", "is given beside token; give one of them.");
  }
  const source = () =>
    tokenFile === undefined ? checked("token", /** @type {string} */ (token)) : checked("tokenFile", first(tokenFile));
  source();
  return source;
}

/**
 * @param {string} option
 * @param {string} path
 */
function read(option, path) {
  return attempt(option, "cannot be read", () => readFileSync(path));
}

/**
 * @param {string} option
 * @param {string} path of a PEM file that holds certificates
 */
function pem(option, path) {
  const bytes = read(option, path);
  attempt(option, `${path} holds no PEM certificate`, () => new X509Certificate(bytes));
  return bytes;
}

/**
 * @template Result
 * @param {string} option
 * @param {string} problem
 * @param {() => Result} action
 * @returns {Result}
 */
function attempt(option, problem, action) {
  try {
    return action();
  } catch (error) {
    throw new OptionError(option, `${problem}: ${/** @type {Error} */ (error).message}`, { cause: error });
  }
}

/**
 * The first token of a file that holds one a line, as the service's own file does; blank lines and # are left out.
 *
 * @param {string} tokenFile
 */
function first(tokenFile) {
  const lines = read("tokenFile", tokenFile).toString().split("\n");
  return lines.map((line) => line.trim()).find((line) => line && !line.startsWith("#")) ?? "";
}

/**
 * @param {string} option
 * @param {string} token
 */
function checked(option, token) {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new OptionError(option, "wants a token of printable ASCII without spaces.");
  return token;
}

/** Where the reward service is, and how to talk to it. */
export interface ClientOptions {
  /** Host and port. Default "127.0.0.1:8010". */
  address?: string;
  /** Milliseconds a call may take, its retries included. Default 30,000. */
  deadlineMs?: number;
  /** Bearer token. Without `tls` it travels in plain text: keep that to this machine. */
  token?: string;
  /** File that holds the token in its first line; read at each call, so that it can be rotated. */
  tokenFile?: string;
  /** Speak TLS. `{}` trusts the certificate authorities that Node ships. */
  tls?: TlsOptions;
}

/** Paths of PEM files. */
export interface TlsOptions {
  /** Certificate authorities that may have signed the server's certificate. */
  ca?: string;
  /** This client's certificate, for a server that asks for one (mTLS). Comes with `key`. */
  cert?: string;
  /** Private key of `cert`. */
  key?: string;
}

/** One query and the model's answer to it. */
export interface Pair {
  /** The search query, 1 to 2,000 characters without NUL, with its "/only:KIND" ending where it has one. */
  query: string;
  /** The model's answer as it wrote it, up to 16 KiB of UTF-8 without NUL. */
  expansion: string;
}

export type Kind = "lex" | "vec" | "hyde";

export type Rating = "Failed" | "Poor" | "Acceptable" | "Good" | "Excellent";

/** How good one expansion is, in points of the rubric. */
export interface Score {
  /** The reward: total over maxPossible, 0 to 1. */
  score: number;
  /** 0 to 30. */
  format: number;
  /** -10 to 30. */
  diversity: number;
  /** 0 to 20. */
  hyde: number;
  /** Up to 23; below 0 where many lex lines hold filler. */
  quality: number;
  /** 0 to 20. Shown as 0 where it is below, and counted in `total` as it is. */
  entity: number;
  /** 0 or 20. */
  thinkBonus: number;
  /** Sum of the parts, 0 to 140. */
  total: number;
  /** 100, 120 or 140. */
  maxPossible: number;
  /** 0 to 100, rounded to one decimal. */
  percentage: number;
  rating: Rating;
  /** The one kind of line that the query asked for, else null. */
  onlyMode: Kind | null;
  /** The query's entities, lower case, sorted. */
  entities: string[];
  /** Why points were lost, at most 100. */
  reasons: Deduction[];
}

/** One reason for lost points. Which of the fields after the first are filled depends on it. */
export interface Deduction {
  /** Such as "lines_alike": the names of `enum Reason` in the contract. A number where the service is newer. */
  reason: string | number;
  /** The kind of line that is meant, where one is. */
  kind: Kind | null;
  /** Numbers of the lines meant, from 1: among those of `kind`, or in the whole text where there is no kind. */
  lines: number[];
  /** Characters of the hyde line, lines of other kinds, or the cap in percent. */
  count: number;
  /** The words or lines meant. */
  texts: string[];
  /** All of that in words. */
  sentence: string;
}

/** What the server scores with. */
export interface Info {
  /** Version of the rubric, such as "1". */
  rubricVersion: string;
  /** Version of what QMD does with a model, such as "2.8". */
  qmdContract: string;
  /** Version of the service's package. */
  build: string;
}

/**
 * A client of the reward service. Connects at the first call and again whenever the connection was lost.
 * A call that finds no server is tried up to five times within its deadline, with growing, jittered pauses.
 * Calls reject with a RewardError.
 */
export declare class RewardClient {
  /** Throws OptionError, such as for a certificate that cannot be read. */
  constructor(options?: ClientOptions);
  score(query: string, expansion: string): Promise<Score>;
  /** At most 4,096 pairs; the scores come in their order. */
  scoreBatch(pairs: readonly Pair[]): Promise<Score[]>;
  getInfo(): Promise<Info>;
  /**
   * Calls any unary method of the contract, with its messages as plain objects, names in camel case.
   * For methods that have none of their own here. Throws TypeError for a name that the contract lacks.
   */
  call(method: string, request: object): Promise<any>;
  /** Ends the connection. A client that is not closed keeps the process running only while a call does. */
  close(): void;
}

/** An option of the client that cannot be used. The message names the option, the problem and the remedy. */
export declare class OptionError extends Error {
  /** Such as "tls.ca". */
  option: string;
}

/** A call that failed. The message names service, address, problem and remedy. */
export declare class RewardError extends Error {
  service: string;
  address: string;
  /** Name of the gRPC status, such as "UNAVAILABLE". */
  code: string;
  /** What to do about it. */
  remedy: string;
}

/** The service could not be reached, or went away, and stayed away for all retries. */
export declare class UnavailableError extends RewardError {}
/** No answer came within the deadline. */
export declare class DeadlineError extends RewardError {}
/** The request is not one that the service takes; the message names the field and its limit. */
export declare class InvalidRequestError extends RewardError {}
/** The service wants a token, or knows another one. */
export declare class AuthenticationError extends RewardError {}

export { RewardClient } from "./client.js";
export {
  AuthenticationError,
  DeadlineError,
  InvalidRequestError,
  OptionError,
  RewardError,
  UnavailableError,
} from "./errors.js";

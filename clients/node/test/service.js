import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { RewardClient, UnavailableError } from "../src/index.js";

export const project = fileURLToPath(new URL("../../../", import.meta.url));
export const python = process.env.QMD_FOUNDRY_PYTHON ?? `${project}.venv/bin/python`;

/** A port on loopback that nothing listens on. */
export async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (probe.address());
  probe.close();
  await once(probe, "close");
  return port;
}

/** `python -m reward_service` on a port of its own, started as often as it is told to. */
export class RewardProcess {
  /** @type {Promise<unknown>} */
  exited = Promise.resolve();
  log = Promise.resolve("");

  /** @param {number} port */
  constructor(port, config = `${project}configs/cpu/reward.yaml`) {
    this.address = `127.0.0.1:${port}`;
    this.command = ["-m", "reward_service", "--config", config, "--port", String(port)];
    this.start();
  }

  start() {
    this.process = spawn(python, this.command, { cwd: project, stdio: ["ignore", "ignore", "pipe"] });
    this.exited = once(this.process, "exit");
    this.log = text(this.process.stderr);
  }

  /** @param {NodeJS.Signals} signal */
  async end(signal = "SIGTERM") {
    this.process?.kill(signal);
    await this.exited;
  }

  /**
   * Returns when it answers.
   * @param {import("../types/index.js").ClientOptions} [options]
   */
  async ready(options) {
    const ended = this.exited.then(async () => Promise.reject(new Error(await this.log)));
    const client = new RewardClient({ ...options, address: this.address });
    try {
      for (let attempt = 0; ; attempt++) {
        try {
          return await Promise.race([client.getInfo(), ended]);
        } catch (error) {
          if (!(error instanceof UnavailableError) || attempt === 15) throw error;
        }
      }
    } finally {
      client.close();
    }
  }
}

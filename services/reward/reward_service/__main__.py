"""`python -m reward_service`: starts the reward service."""

import sys

from qmd_rpc.command import service_command
from reward_service.config import RewardServiceConfig
from reward_service.server import run

DESCRIPTION = "Scores query expansions over gRPC (foundry.v1.RewardService) until SIGTERM or Ctrl-C."

if __name__ == "__main__":
    sys.exit(service_command("reward_service", DESCRIPTION, "reward.yaml", RewardServiceConfig, run))

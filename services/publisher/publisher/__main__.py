"""`python -m publisher`: starts the publishing service."""

import sys

from publisher.config import PublisherConfig
from publisher.server import run
from qmd_rpc.command import service_command

DESCRIPTION = "Publishes judged models over gRPC (foundry.v1.PublishingService) until SIGTERM or Ctrl-C."

if __name__ == "__main__":
    sys.exit(service_command("publisher", DESCRIPTION, "publisher.yaml", PublisherConfig, run))

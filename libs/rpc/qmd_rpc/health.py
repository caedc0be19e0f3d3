"""`python -m qmd_rpc.health HOST:PORT`: exits with 0 when the gRPC server there serves, else with 1 and the reason."""

import argparse
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qmd_rpc.channel import open_channel
from qmd_rpc.security import Access
from qmd_schema.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m qmd_rpc.health", description="Asks a gRPC server's health check; exits with 0 when it serves."
    )
    parser.add_argument("address", help="such as 127.0.0.1:8010")
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS")
    parser.add_argument("--ca", type=Path, help="PEM file of the CA of the server's certificate, where it has one")
    parser.add_argument("--certificate", type=Path, help="PEM file of a client certificate, where the server wants one")
    parser.add_argument("--key", type=Path, help="PEM file of that certificate's key")
    arguments = parser.parse_args()
    address = arguments.address
    try:
        credentials = Access(arguments.ca, arguments.certificate, arguments.key).credentials()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with open_channel(address, credentials, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest()
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=arguments.timeout)
        except grpc.RpcError as error:
            print(f"{address}: {error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    print(f"{address}: {status}")
    return 0 if response.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())

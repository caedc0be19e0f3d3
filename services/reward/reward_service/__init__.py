"""The gRPC reward service."""

"""Generated from ``fray.proto`` by ``scripts/generate_proto.sh``; committed, and checked to be fresh."""

#!/bin/sh
# Asks over gRPC with grpcurl, which learns the calls from the gateway itself.
#
#     examples/clients/generate.sh [HOST:PORT]
exec grpcurl -plaintext -d '{
    "chat": {"messages": [{"role": "user", "content": "Tell me a story."}]},
    "stop": {"max_new_tokens": 16}
  }' "${1:-127.0.0.1:50051}" moesaic.v1.GenerationService/Generate

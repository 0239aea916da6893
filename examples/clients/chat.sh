#!/bin/sh
# Asks with curl, and prints the answer and where its time went.
#
#     OPENAI_API_KEY=… examples/clients/chat.sh [URL]
url=${1:-http://127.0.0.1:8000/v1}

exec curl --silent --show-error --fail-with-body "$url/chat/completions" \
  --header "Authorization: Bearer ${OPENAI_API_KEY:-none}" \
  --header "Content-Type: application/json" \
  --data '{
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "max_tokens": 16,
    "include_metrics": true
  }'

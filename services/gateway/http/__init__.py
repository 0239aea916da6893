"""OpenAI's API over HTTP: translates it into what the gRPC service takes, and back."""

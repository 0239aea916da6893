"""The names of the gateway's methods, which both doors count, bound and trace by."""

from moesaic.v1 import generation_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GenerationService"].full_name
GENERATE, TOKENIZE, DETOKENIZE, GET_MODEL = (
    f"/{SERVICE_NAME}/{name}" for name in ("Generate", "Tokenize", "Detokenize", "GetModel")
)
# Calls that take a place among what waits.
QUEUED = (GENERATE, TOKENIZE, DETOKENIZE)

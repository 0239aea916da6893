"""Which model a gateway serves, by its own word."""

import grpc

from moesaic.v1 import generation_pb2, generation_pb2_grpc
from services.cli.failed_calls import words_of
from services.cli.request import CallSettings, RequestFailed
from services.runtime.channels import open_channel

ASK_SECONDS = 10.0


async def model_of(gateway: str, settings: CallSettings) -> generation_pb2.GetModelResponse:
    """What it says. Raises RequestFailed where it does not."""
    try:
        async with open_channel(gateway, tls=settings.gateway_trust) as channel:
            model: generation_pb2.GetModelResponse = (
                await generation_pb2_grpc.GenerationServiceStub(channel).GetModel(
                    generation_pb2.GetModelRequest(),
                    timeout=min(settings.timeout, ASK_SECONDS),
                    metadata=settings.metadata,
                )
            )
    except grpc.aio.AioRpcError as error:
        words = await words_of(error, "gateway", gateway, verbose=settings.verbose)
        raise RequestFailed(words) from error
    return model

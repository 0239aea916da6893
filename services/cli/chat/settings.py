"""What `moesaic chat` can be told."""

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from services.cli.receipt_flag import ReceiptFlag
from services.cli.sampling_flags import with_sampling_flags
from services.cli.settings import MAX_UINT32, ClientSettings, TracingOption
from services.runtime.addresses import ServiceTarget


@with_sampling_flags
class ChatSettings(ReceiptFlag, ClientSettings):
    """Talk with the model: a line is a question, and the answer streams below it.

    Ctrl-C stops an answer, Ctrl-D ends the conversation, /help lists the commands.
    A question of several lines: end a line with \\, or press Alt-Enter.
    Where stdin is no terminal, each line is answered.

    Without --address it asks the cluster that runs here. Where none runs, or a flag
    from --model to --generation-config describes another, it starts one of its own.
    With --tracing that is traced, for /trace.
    """

    model_config = SettingsConfigDict(env_prefix="MOESAIC_CHAT_", frozen=True)

    system: str = Field("", description="what the model is told before the conversation")
    max_new_tokens: PositiveInt | None = Field(
        None, le=MAX_UINT32, description="most tokens of an answer"
    )
    timeout: PositiveFloat = Field(600.0, le=86_400, description="seconds that an answer may take")
    router: ServiceTarget | None = Field(
        None, description="host:port of the router that /experts asks; else the cluster's"
    )
    traces: str = Field(
        "", description="URL of the tracing service or Jaeger that /trace asks; else the cluster's"
    )
    tracing: TracingOption = False

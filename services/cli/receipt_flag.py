"""How much of a request's cost is shown."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

Amount = Literal["auto", "short", "full", "none"]


class ReceiptFlag(BaseSettings):
    """The flag that commands share which show what a request cost."""

    receipt: Amount = Field(
        "auto",
        description="what to say of the cost: short is a line, full a table, none nothing; auto is "
        "short on a terminal",
    )

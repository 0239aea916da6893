"""The requests of one call, of a batch of prompts: each is let in by itself, and all have to be."""

from services.wire.errors import InvalidRequest


class Together:
    """Tells what can never be let in from what could be later.

    Of one client there may wait so many sequences, so many tokens of prompts, and for its rate,
    where it has one, so many requests.
    """

    def __init__(self, *, max_sequences: int, max_tokens: int, max_paced: int | None) -> None:
        self._max_sequences = max_sequences
        self._max_tokens = max_tokens
        self._max_paced = max_paced
        self._num_tokens = 0

    def check(self, num_prompts: int, num_choices: int) -> None:
        """Raises InvalidRequest, naming the limit, for more than may ever wait."""
        if num_prompts == 1:  # alone it is let in, with any number of choices
            return
        num_sequences = num_prompts * num_choices
        if num_sequences > self._max_sequences:
            raise InvalidRequest(
                f"prompt has {num_prompts} elements, and n is {num_choices}: of these "
                f"{num_sequences} continuations at most {self._max_sequences} may wait at once"
            )
        if self._max_paced is not None and num_prompts > self._max_paced:
            raise InvalidRequest(
                f"prompt has {num_prompts} elements; at most {self._max_paced} of one client may "
                "wait for its rate"
            )

    def add(self, num_tokens: int) -> None:
        """One of them has a prompt of so many tokens, all its choices counted."""
        self._num_tokens += num_tokens

    def check_tokens(self) -> None:
        """To be asked where one was refused for its tokens. Raises InvalidRequest where it would be
        with nobody else there, too.
        """
        if self._num_tokens > self._max_tokens:
            raise InvalidRequest(
                f"prompt: its elements have {self._num_tokens} tokens or more together, for each "
                f"of n anew; of one client at most {self._max_tokens} may wait at once"
            )

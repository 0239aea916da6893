class Context:
    """Who a side is and whom it believes, for any number of connections; it never changes."""

    def __init__(
        self,
        is_server: bool,
        certificate: bytes | None,
        key: bytes | None,
        authority: bytes | None,
        /,
    ) -> None:
        """All are PEM. `certificate` is a chain that begins with the own one; a client may do
        without it and its key. The peer has to have a certificate of `authority`; without that, a
        server asks for none, and a client for one of an authority that the system knows. Raises
        ValueError, saying which of them cannot be used.
        """
    @property
    def capsule(self) -> object:
        """For the modules in C."""

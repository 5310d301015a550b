"""What commands do beside serving: through the running service, or on the data folder when nobody holds it."""


class CommandFailed(Exception):
    """It was understood and did not succeed (exit status 1); the message is one line."""

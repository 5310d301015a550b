"""The HTTP layer: every status, header and text that a client sees."""

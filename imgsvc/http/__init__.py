"""The wire: every status, header and text that a client sees."""

"""What was accepted and where it stands: the durable job path."""

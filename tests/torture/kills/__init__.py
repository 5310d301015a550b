"""`./run torture kills`: the service killed at random moments while clients upload, read and delete."""

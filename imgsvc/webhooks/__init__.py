"""Tells others what happens to images: signed requests from an outbox, at least once, in order for each image."""

"""The operator's work on what is stored: checking, removing, moving and backing up, beside a live service or without.

It knows jobs and storage, and nothing of HTTP or of a terminal.
"""

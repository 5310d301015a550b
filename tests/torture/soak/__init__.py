"""`./run torture soak`: hours of uploads, reads, deletions and webhooks, and what has grown at their end."""

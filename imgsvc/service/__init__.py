"""One running process: builds the service, starts and stops it in order, and serves it with Hypercorn."""

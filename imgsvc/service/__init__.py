"""One running process: a service built, started and stopped in order, and served by Hypercorn."""

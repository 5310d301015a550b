"""One running process: the parts joined, and served by Hypercorn."""

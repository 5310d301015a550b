"""Parts of `./run bench uploads`."""

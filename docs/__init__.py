"""The documentation, and the scripts that build and check it: `./run docs`. Not installed."""

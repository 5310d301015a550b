"""`python -m imgsvc`, and the command `imgsvc`."""

from .cli.imports import without_collections

with without_collections():
    from .cli.main import main

if __name__ == "__main__":
    main()

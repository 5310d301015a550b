"""`python -m imgsvc`."""

from .cli import main

if __name__ == "__main__":
    main()

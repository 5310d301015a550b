"""The size of a variant."""


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` scaled so that its longer side is `side` pixels: rounded, at least 1, never enlarged."""
    longer = max(size)
    if longer <= side:
        return size
    width, height = (max(1, (length * side * 2 + longer) // (longer * 2)) for length in size)
    return width, height

"""`./run torture connections`: clients in great numbers that do nothing, or little, beside a stranger who works."""

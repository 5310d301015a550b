"""Where finished bytes live."""

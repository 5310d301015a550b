"""Access control: tokens, permissions, signed URLs, and the operator."""

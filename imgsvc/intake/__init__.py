"""Taking uploads in: staging, limits, and the durable receipt."""

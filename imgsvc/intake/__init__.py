"""Accepts uploads: staging, limits, and the durable receipt."""

"""The endpoints for the operator."""

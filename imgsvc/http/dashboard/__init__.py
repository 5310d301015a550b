"""The dashboard: page, data, static files."""

"""The dashboard: page, data and static files."""

"""Logs, metrics, health checks and alerts."""

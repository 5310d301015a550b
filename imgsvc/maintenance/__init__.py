"""Maintenance tasks: verify, gc, migrate, backup, restore and adopt. They run in a live service or without one.

They use jobs and storage, and depend on neither HTTP nor a terminal.
"""

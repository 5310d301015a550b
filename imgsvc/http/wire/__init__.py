"""Shared by all endpoints: errors, middleware, validation. No endpoint is defined here."""

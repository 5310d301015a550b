"""Turns one untrusted image file into clean WebP variants.

Runs in worker processes, imports no other part of imgsvc, and is quick to import. Only `header` also runs in the API
process: it is pure Python and therefore safe there.
"""

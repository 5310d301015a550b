"""Pixels only: from one untrusted file to clean WebP variants.

Runs in worker processes, imports nothing else of imgsvc, and imports fast. The one exception to "workers only"
is `header`, which is pure Python and therefore safe to run where the requests are.
"""

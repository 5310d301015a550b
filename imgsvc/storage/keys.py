"""The names of stored files: which are ours, and what they say."""

import re

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
OURS = re.compile(
    rf"(?P<bucket>.+)/(?P<key>processed/(?P<variant>[^/]+)/(?P<partial>\.)?(?P<image>{UUID})_(?P=variant)\.webp"
    r"(?(partial)\.partial))"
)

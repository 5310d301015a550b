"""How many durable calls each scenario came to when it was last counted: the usual tests take one of them at random.

A kill beyond the end is the scenario without a fault. `./run torture kill-at`, which counts, says which are far off.
"""

import random

from tests.support.preload import Fault

CALLS = {
    "upload": 573,
    "upload-in-chunks": 573,
    "same-photo-twice": 583,
    "reuse": 245,
    "reuse-and-delete": 302,
    "upload-with-ticket": 510,
    "failing-picture": 563,
    "webhooks": 735,
    "avif": 592,
    "quota": 838,
    "fetch": 573,
    "refused-uploads": 580,
    "upload-broken-off": 573,
    "stop-amid-upload": 573,
    "retry-by-itself": 688,
    "upload-to-s3": 548,
    "delete-completed": 116,
    "delete-waiting": 891,
    "delete-running": 520,
    "delete-failed": 117,
    "delete-in-s3": 107,
    "retry-by-operator": 259,
    "retry-by-command": 84,
    "stop-with-work": 593,
    "operator-session": 367,
    "set-aside": 52,
    "expire": 175,
    "retention": 97,
    "patch": 58,
    "formats": 614,
    "formats-and-delete": 691,
    "focal": 127,
    "focal-twice": 168,
    "focal-and-delete": 197,
    "kept-source": 507,
    "drop-sources": 76,
    "render-again": 223,
    "create-key": 591,
    "revoke-key": 56,
    "revoke-and-restore": 58,
    "erase": 228,
    "restore-what-was-revoked": 96,
    "first-start": 358,
    "first-secret": 4,
    "old-data-folder": 769,
    "doctor": 4,
    "adopt": 41,
    "adopt-without-database": 328,
    "first-backup": 189,
    "backup": 169,
    "backup-of-a-service": 200,
    "backup-that-drops": 161,
    "delete-during-backup": 271,
    "restore": 96,
    "restore-anew": 92,
    "gc": 16,
    "verify": 22,
    "migrate": 138,
    "migrate-by-command": 116,
    "migrate-to-s3": 77,
    "migrate-from-s3": 92,
}
CREATION = CALLS["first-start"]


def one_kill(scenario: str, seed: str) -> Fault:
    """After the database was made, where it is made: that is a scenario of its own."""
    calls = CALLS.get(scenario, CREATION)
    first = CREATION if calls > CREATION else 1
    return Fault("kill", random.Random(f"{seed} {scenario}").randint(first, calls))

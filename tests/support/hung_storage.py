"""`imgsvc` whose storage folder stops answering once a file `hang` lies beside it; `hung` is then made there.

python -m tests.support.hung_storage serve
"""

import threading
from pathlib import Path

from imgsvc.cli import main
from imgsvc.storage import local
from imgsvc.telemetry import health

remove = local._remove


def hanging(root: Path, bucket: str, key: str) -> bool:
    if root.with_name("hang").exists():
        root.with_name("hung").touch()
        threading.Event().wait()
    return remove(root, bucket, key)


if __name__ == "__main__":
    setattr(local, "_remove", hanging)  # noqa: B010
    health.EVERY_SECONDS = 0.2  # which looks at the storage
    main.main()

"""The service, ended or failing at each durable call in turn: `python -m tests.torture.kill_at --help`.

- `scenarios`  what is done meanwhile: add one here for whatever is written in a new way.
- `site`       the folders of one case, and the processes that work in it.
- `case`       one scenario with one fault: what was done, the start after it, and all that must hold then.
- `page_cache` what the disk holds if the power fails.
- `without_sync` each sync left out in turn, which a lost page cache must show.
- `plan`       which faults: all of them, or a sample.
"""

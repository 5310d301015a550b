"""Damaged pictures by the thousand, and what a worker says of each."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from fixtures import make

ROOT = Path(__file__).parent.parent.parent
# Each file under the ceiling that its job would get, in a child of one warm process.
WORKER = """
import contextlib, hashlib, json, os, socket, sys, tempfile
from pathlib import Path
from imgsvc.imaging.error_messages import is_ours
from imgsvc.imaging.errors import ImageError
from imgsvc.imaging.limits import preview_bytes, probe, render_bytes, settled
from imgsvc.jobs.lanes import warm
from imgsvc.settings.jobs import Images

usual, folder = Images(max_pixels=4_000_000).recipe, Path(sys.argv[1])
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
warm.initialize(theirs, theirs, warm.Launch(os.getppid(), 0, "best"))

def answer_of(task, source):
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(open(source, "rb"))
        outputs = [stack.enter_context(open(folder / f"made-{name}", "w+b")) for name in task["outputs"]]
        with tempfile.TemporaryFile() as text:
            text.write(json.dumps(task).encode())
            text.seek(0)
            files = [os.dup(one.fileno()) for one in (text, stream, *outputs)]
        end, _, answer = warm._process.perform(files, 60)
    for child in socket.recv_fds(ours, 1, 1)[1]:
        os.close(child)
    assert end == "answered", end
    return json.loads(answer)

for line in sys.stdin:
    mime, name = line.split()
    source = folder / name
    try:
        with open(source, "rb") as stream:
            header = probe(stream, mime, max_pixels=usual.max_pixels)
        recipe = settled(header, usual)
    except ImageError as error:
        print(json.dumps({"probe": error.code}))
        continue
    names = [variant.name for variant in recipe.variants]
    task = {"id": name, "job_id": name, "mime": mime, "recipe": recipe.to_json(), "time_limit": 60,
            "file_ceiling": 1 << 30,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    verdict = {}
    for kind, estimate in (("preview", preview_bytes(header, recipe)), ("render", render_bytes(header, recipe))):
        if estimate:
            outputs = [recipe.preview.name] if kind == "preview" else names
            answer = answer_of({**task, "kind": kind, "memory_ceiling": estimate, "outputs": outputs}, source)
            verdict[kind] = answer["error"]["code"] if answer["error"] else "ok"
            if answer["error"] and not is_ours(answer["error"]["code"], answer["error"]["message"]):
                verdict["not ours"] = answer["error"]["message"]
            if answer["log"]:
                verdict["log"] = answer["log"]
    print(json.dumps(verdict))
"""


def damage(form: str, count: int) -> list[bytes]:
    """`count` files of a format: bytes changed, and half of them cut somewhere; the same ones every time."""
    chance = random.Random(form)
    originals = [
        make.oriented(6, form),
        make.encoded(make.photo(200, 150), form, progressive=True),
        make.encoded(make.quadrants(), form),
        make.encoded(make.quadrants(mode="P" if form == "PNG" else "L"), form),
    ]
    files = []
    for _ in range(count):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        files.append(bytes(data[: chance.choice((len(data), chance.randrange(1, len(data))))]))
    return files


def verdicts(folder: Path, form: str, files: list[bytes]) -> Counter[str]:
    """How often a worker's process said what: `probe: CODE`, `preview: CODE`, `render: CODE`, `log: …`."""
    for number, data in enumerate(files):
        (folder / str(number)).write_bytes(data)
    lines = "".join(f"image/{form.lower()} {number}\n" for number in range(len(files)))
    command = [sys.executable, "-c", WORKER, str(folder)]
    ran = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(said) == len(files)
    return Counter(f"{name}: {value}" for one in said for name, value in one.items())

"""`./run` of the examples: has a command forked by the process of this address, and ends as the command does.

`python -IS forked_run.py ADDRESS ARGUMENT …`. Signals that end it are passed on to the command. Starting an interpreter
that loads `imgsvc` takes 0.3 s, and this 30 ms.
"""

import json
import os
import signal
import socket
import sys

MESSAGE_BYTES = 1 << 17
INLINE = "RENDERS_IN_THREADS"  # of a test that has nothing to do with workers
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(address: str, arguments: list[str]) -> int:
    order = {
        "module": "imgsvc",
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109, pathlib takes as long to load as all else here
        "environ": dict(os.environ),
        "settings": "",
        "inline": INLINE in os.environ,
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the command is known that they are for
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(f"\0{address}")
        socket.send_fds(connection, [json.dumps(order).encode()], [1, 2])
        command: int = json.loads(connection.recv(MESSAGE_BYTES))["pid"]
        for number in ENDING:
            signal.signal(number, lambda given, _: os.kill(command, given))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        said = json.loads(connection.recv(MESSAGE_BYTES))
    status: int = said["status"]
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

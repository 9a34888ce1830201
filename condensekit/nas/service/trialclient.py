"""Trial client: the process that NNI's service starts for a trial; it gives the trial to the fork server and waits.

Run it as a file, ``python -I -S trialclient.py SOCKET ...``. It uses the standard library only, so that it starts in
milliseconds. It ignores the further arguments, which NNI adds.
"""

import importlib.util
import json
import os
import socket
import sys


def main() -> int:
    """Run the trial; returns its exit code."""
    nas = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location("messages", os.path.join(nas, "engines", "messages.py"))
    assert spec is not None
    assert spec.loader is not None
    messages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(messages)
    request = json.dumps({"cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    server = socket.socket(socket.AF_UNIX)
    os.chdir(os.path.dirname(sys.argv[1]))  # the path of a socket must be short
    server.connect(os.path.basename(sys.argv[1]))
    messages.send(server, "T", request, (0, 1, 2))
    message = messages.receive(server)
    code = 1 if message is None else int(message[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())

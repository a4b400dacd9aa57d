"""Starts `deixis` each time a line on stdin asks for it, in a forked process, so that torch is imported once.

A line is JSON: ``arguments`` of the command, and ``most_bytes`` that a file may grow to, which stands for a full disk.
The answer is two lines: the process's id when it starts, and JSON of its ``code`` and of what it ``told`` on stderr.
"""

import json
import os
import resource
import sys

import transformers.models.bert.modeling_bert
import transformers.models.resnet.modeling_resnet  # noqa: F401

import deixis.train.trainer  # noqa: F401
from deixis.cli import main


def run(asked, stderr):
    os.dup2(stderr, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    if asked["most_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["most_bytes"], asked["most_bytes"]))
    sys.argv = ["deixis", *asked["arguments"]]
    main()


def serve():
    for line in sys.stdin:
        outlet, inlet = os.pipe()
        pid = os.fork()
        if not pid:
            run(json.loads(line), inlet)
        os.close(inlet)
        os.setpgid(pid, pid)  # before anybody is told of it, so that all of it can be killed
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        os.set_blocking(outlet, False)  # a killed run's workers hold the other end for some seconds more
        try:
            told = os.read(outlet, 60_000).decode(errors="replace")
        except BlockingIOError:
            told = ""
        os.close(outlet)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "told": told}), flush=True)


serve()

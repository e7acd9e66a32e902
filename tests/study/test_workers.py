import signal
import subprocess
import sys
import time

import psutil

PARENT = """
import sys
from rich.console import Console
from slackdlm.study.workers import Job, run_jobs
from workers_job import sleep_long

if __name__ == "__main__":
    run_jobs(sleep_long, [Job("a", sys.argv[1], 1, lambda: 0)], console=Console(quiet=True))
"""
JOB = """
import os, pathlib, time

def sleep_long(file):
    pathlib.Path(file).write_text(str(os.getpid()))
    time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "workers_job.py").write_text(JOB)
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "parent.py", str(pid_file)], cwd=tmp_path)
    deadline = time.monotonic() + 90
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    worker = int(pid_file.read_text())
    assert is_alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)

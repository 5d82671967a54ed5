"""A job process that computes nothing: `python fake_job.py BEHAVIOUR DIARY JOB TOKEN ATTEMPT`.

It writes a line for each start and each end to the file DIARY.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path


def main(behaviour: str, diary: str, job_id: str, token: str, attempt: str) -> int:
    def note(event: str) -> None:
        with Path(diary).open("a") as file:  # one write of a short line: never torn
            file.write(f"{event} {job_id} {attempt} {os.getpid()}\n")

    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "mother":  # a child that would outlive it
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with Path(diary).open("a") as file:
            file.write(f"child {job_id} {attempt} {child.pid}\n")
    if behaviour == "bound":
        from workers.parent import bind_to  # noqa: PLC0415, the others need nothing of ours

        assert bind_to(os.getppid())
    note("start")
    print(f"this is {behaviour}", file=sys.stderr, flush=True)
    if behaviour == "crash":
        raise RuntimeError("the cause of it")
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "succeed":
        note("end")
        succeed(os.environ["RANKSEARCH_DATABASE_URL"], job_id, token)
        return 0
    while True:
        time.sleep(600)


def succeed(url: str, job_id: str, token: str) -> None:
    """Close the job as `lease.finish` does, without the half second that SQLAlchemy takes."""
    close = (
        "UPDATE jobs SET state = 'succeeded', verdict = 'budget_met', lease_token = NULL "
        f"WHERE id = '{job_id}' AND lease_token = '{token}'"
    )
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)
    else:
        import psycopg  # noqa: PLC0415, a tenth of a second

        connection = psycopg.connect(url.replace("+psycopg", ""))
    with connection:
        connection.execute(close)
    connection.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

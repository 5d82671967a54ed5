"""`python -m tests.store.claimant URL`: says so, waits for a line, claims until nothing is left."""

import sys

from service.store.lease import claim
from service.store.session import make_engine, make_sessions


def main() -> None:
    engine = make_engine(sys.argv[1])
    sessions = make_sessions(engine)
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        with sessions.begin() as session:
            lease = claim(session, "a process", 600)
        if lease is None:
            break
        print(lease.job_id)
    engine.dispose()


if __name__ == "__main__":
    main()

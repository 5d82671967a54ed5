"""`python -m workers` with a fake job: `python supervise.py BEHAVIOUR DIARY`."""

import sys
from functools import partial

from tests.workers.jobs import fake_command
from workers.__main__ import main

if __name__ == "__main__":
    main(command=partial(fake_command, *sys.argv[1:]))

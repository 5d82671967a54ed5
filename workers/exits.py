"""How a job process ends; whoever started it reads no more than this."""

import enum


class Exit(enum.IntEnum):
    """Exit codes of `python -m workers.job`."""

    DONE = 0  # the job's row is closed: succeeded, or failed with a reason
    CRASHED = 1  # an error that nobody expected; the job is queued again
    USAGE = 2  # not the arguments that were wanted
    LEASE_LOST = 3  # another worker holds the job now, or it was cancelled: not ours to close
    ORPHANED = 4  # the supervisor was gone before the job process could bind itself to it
    STOPPED = 143  # SIGTERM: a cancellation, or the supervisor drains

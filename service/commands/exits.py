"""How a command ends, for scripts to branch on."""

from enum import IntEnum

from service.schemas import JobOut
from service.store.tables import JobState


class Exit(IntEnum):
    """Exit codes of `ranksearch`."""

    BUDGET_MET = 0  # also: whatever else was asked for is done
    FAILED = 1
    USAGE = 2  # also: the service refused the request
    BUDGET_MISSED = 3
    NO_GAIN = 4
    CANCELLED = 5
    UNREACHABLE = 6
    DETACHED = 130  # Ctrl-C: the job goes on without us


VERDICTS = {
    "budget_met": Exit.BUDGET_MET,
    "budget_missed": Exit.BUDGET_MISSED,
    "no_gain": Exit.NO_GAIN,
}


def of_job(job: JobOut) -> Exit:
    """What a job that has ended comes to."""
    if job.state is JobState.SUCCEEDED and job.verdict is not None:
        return VERDICTS[job.verdict]
    return Exit.CANCELLED if job.state is JobState.CANCELLED else Exit.FAILED

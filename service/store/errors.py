"""What the store refuses. Only the edge knows which status each becomes.

StoreError
├── NotFoundError
├── ConflictError
│   ├── StateConflictError
│   ├── NameTakenError
│   └── InUseError
├── LeaseLostError
├── IdempotencyReusedError
└── CursorError
"""


class StoreError(Exception):
    """Any refusal of the store."""


class NotFoundError(StoreError, LookupError):
    """There is no such row."""

    def __init__(self, kind: str, id: str) -> None:  # noqa: A002
        super().__init__(f"no {kind} has the id {id}")
        self.kind = kind
        self.id = id


class ConflictError(StoreError):
    """The row is there, but not such that this can be done to it."""


class StateConflictError(ConflictError):
    """A job is in a state that does not allow this."""

    def __init__(self, job_id: str, state: str, wanted: str) -> None:
        super().__init__(f"job {job_id} is {state}, {wanted} was wanted")
        self.job_id = job_id
        self.state = state


class NameTakenError(ConflictError):
    """Another job has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another job has the name {name!r}: choose a new one or none")
        self.name = name


class InUseError(ConflictError):
    """Jobs refer to the row."""

    def __init__(self, kind: str, id: str, job_id: str) -> None:  # noqa: A002
        super().__init__(f"{kind} {id} is used by job {job_id}: delete the jobs that use it first")
        self.kind = kind
        self.id = id
        self.job_id = job_id


class LeaseLostError(StoreError):
    """The job is no longer this worker's: ended, or in the hands of another."""

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} of job {job_id} no longer holds the lease: stop it")
        self.job_id = job_id
        self.attempt = attempt


class IdempotencyReusedError(StoreError, ValueError):
    """A key came again with another body."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} came before with another body: send a new key")
        self.key = key


class CursorError(StoreError, ValueError):
    """A page was asked for after a row that is not there."""

    def __init__(self, after: str) -> None:
        super().__init__(f"no row of this list has the id {after}: start from the first page")
        self.after = after

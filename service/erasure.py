"""Files of rows that were deleted."""

from fastapi import BackgroundTasks, Request

from service.store import garbage
from service.store.session import reading


def erase_later(request: Request, tasks: BackgroundTasks) -> None:
    """Remove the files that no row needs, once the deletion of the rows is committed."""

    def erase() -> None:
        with reading(request.app.state.sessions) as session:
            garbage.collect(session, request.app.state.blobs)

    tasks.add_task(erase)

"""Files of a job's result."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from service.deps import BlobsDep, ReadDep
from service.downloads import Download
from service.fields import Id
from service.schemas import ArtifactOut, Page
from service.store import artifacts, jobs

router = APIRouter(tags=["artifacts"])


@router.get("/jobs/{job_id}/artifacts")
def list_artifacts(job_id: Id, session: ReadDep) -> Page[ArtifactOut]:
    """All files of a job, by name; there are few."""
    jobs.get(session, job_id)
    rows = [ArtifactOut.of(row) for row in artifacts.of_job(session, job_id)]
    return Page(data=rows, has_more=False, next=None)


@router.head("/artifacts/{artifact_id}/content", include_in_schema=False)
@router.get("/artifacts/{artifact_id}/content", response_class=FileResponse)
def download_artifact(
    artifact_id: Id, session: ReadDep, blobs: BlobsDep, request: Request
) -> Response:
    """The file, or one range of its bytes. It never changes: the ETag is its SHA-256."""
    row = artifacts.get(session, artifact_id)
    path = blobs.path(row.sha256)
    file = Download(path, row.name, row.media_type, row.sha256, row.size_bytes)
    return file.answer(request.method, request.headers)

"""Entity tags (RFC 9110, 8.8.3): all of ours are strong."""

import re
from typing import Annotated, Final

from fastapi import Header

TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')

IfNoneMatch = Annotated[str | None, Header(description="Answer 304 if it still has this ETag.")]


def is_unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has what it asks for (RFC 9110, 13.1.2: the weak comparison)."""
    if if_none_match is None:
        return False
    tags = [tag for _, tag in TAG.findall(if_none_match)]
    return if_none_match.strip() == "*" or etag in tags


def is_same(if_range: str | None, etag: str) -> bool:
    """Whether a range continues what the client has (13.1.5: the strong comparison, no date)."""
    return if_range is None or if_range.strip() == etag

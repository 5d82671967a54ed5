"""Lists a page at a time, each with the way to the next."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import Request, Response

from service.schemas import Page

Row = TypeVar("Row")
Item = TypeVar("Item")


def page(
    request: Request,
    response: Response,
    rows: Sequence[Row],
    *,
    limit: int,
    show: Callable[[Row], Item],
    place: Callable[[Row], str],
) -> Page[Item]:
    """Show the first `limit` of the rows, of which there is one more if the list goes on.

    Args:
        request: its URL, with another `after`, is the next page's (Link, RFC 8288).
        response: gets the header.
        rows: up to `limit` + 1.
        limit: length of a page.
        show: a row as it goes out.
        place: the `after` of what follows a row.
    """
    shown = rows[:limit]
    following = place(shown[-1]) if len(rows) > limit else None
    if following is not None:
        url = request.url.include_query_params(after=following)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return Page(data=[show(row) for row in shown], has_more=following is not None, next=following)

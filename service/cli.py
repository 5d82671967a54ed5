"""`ranksearch`: the service and its client on a command line.

Answers go to stdout, progress and errors to stderr; `service.commands.exits` lists the exit codes.
"""

import sys

import typer

from service.client import RefusedError, ServiceError, UnreachableError
from service.commands import jobs, local
from service.commands.compress import compress
from service.commands.exits import Exit
from service.commands.serve import serve

app = typer.Typer(
    name="ranksearch",
    help="The fastest factorised network that keeps your accuracy-loss budget.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(local.worker)
app.command()(compress)
app.add_typer(jobs.app, name="jobs")
app.command()(local.inspect)
app.command()(local.verify)


def main() -> None:
    """Run the command line; what the service refuses is told in one sentence."""
    try:
        app()
    except UnreachableError as error:
        print(f"{error}; is it running? `ranksearch serve` starts one here", file=sys.stderr)
        sys.exit(Exit.UNREACHABLE)
    except RefusedError as error:
        print(error, file=sys.stderr)
        sys.exit(Exit.USAGE if error.status < 500 else Exit.FAILED)
    except ServiceError as error:
        print(error, file=sys.stderr)
        sys.exit(Exit.FAILED)

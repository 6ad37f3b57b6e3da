"""`python -m service` and the console script `stripe-ingest`."""

import sys

import click

from service.cli import cli
from service.errors import ConfigurationError, ConsumerStopped, IngestError
from service.local.errors import LocalStackError

EXIT_WRONG = 1
EXIT_CONFIGURATION = 2
EXIT_TEMPORARY = 75


def main() -> None:
    """Run the command line. Exit 0 done, 1 something wrong was found, 2 bad usage or configuration, 75 try again."""
    try:
        # Outside of its standalone mode click returns the code of an `Exit` instead of raising it.
        sys.exit(cli.main(standalone_mode=False))
    except click.ClickException as usage:
        usage.show()
        sys.exit(EXIT_CONFIGURATION)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ConfigurationError as wrong:
        _fail(f"configuration: {wrong}", EXIT_CONFIGURATION)
    except LocalStackError as failed:
        _fail(str(failed), failed.exit_code)
    except ConsumerStopped as stopped:
        _fail(str(stopped), EXIT_WRONG)
    except IngestError as unavailable:
        _fail(str(unavailable), EXIT_TEMPORARY)


def _fail(message: str, code: int) -> None:
    click.echo(f"stripe-ingest: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()

"""`python -m service` and the console script `stripe-ingest`."""

import os
import sys

import click

from service.cli import cli
from service.errors import (
    ConfigurationError,
    ConsumerStopped,
    IngestError,
    PublishRefused,
    RowRefused,
    StripeApiError,
    StripeKeyRefused,
    StripeUnavailable,
)
from service.hangup import unheeded_at_first
from service.local.errors import LocalStackError

EXIT_DONE = 0
EXIT_WRONG = 1
EXIT_MISUSED = 2
EXIT_TEMPORARY = 75
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_READER_LEFT = 141  # 128 + SIGPIPE


def main() -> None:
    """Run the command line, with a message of one line where it fails.

    Exit 0 done; 1 something wrong was found; 2 bad usage or configuration, or a file that cannot be read or written;
    75 try again; 130 interrupted; 141 whoever read the output has left.
    """
    unheeded_at_first()
    sys.exit(_run())


def _run() -> int:
    try:
        # Outside of its standalone mode click returns the code of an `Exit` instead of raising it.
        return int(cli.main(standalone_mode=False) or EXIT_DONE)
    except SystemExit as done:
        # Nothing here exits of itself, but click and rich do, with 1, at a pipe that nobody reads any more.
        return EXIT_READER_LEFT if done.code == 1 else EXIT_DONE
    except click.ClickException as usage:
        usage.show()
        return EXIT_MISUSED
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except ConfigurationError as wrong:
        return _failed(f"configuration: {wrong}", EXIT_MISUSED)
    except LocalStackError as failed:
        return _failed(str(failed), failed.exit_code)
    except (ConsumerStopped, PublishRefused, RowRefused) as refused:
        return _failed(str(refused), EXIT_WRONG)
    except StripeKeyRefused as wrong:
        return _failed(str(wrong), EXIT_MISUSED)
    except StripeUnavailable as unavailable:
        return _failed(str(unavailable), EXIT_TEMPORARY)
    except StripeApiError as refused:
        return _failed(str(refused), EXIT_WRONG)
    except IngestError as unavailable:
        return _failed(str(unavailable), EXIT_TEMPORARY)
    except (ConnectionError, TimeoutError) as unreachable:
        return _failed(_told(unreachable), EXIT_TEMPORARY)
    except OSError as refused:
        _let_go_of_output()
        return _failed(_told(refused), EXIT_MISUSED)


def _failed(message: str, code: int) -> int:
    click.echo(f"stripe-ingest: {message}", err=True)
    return code


def _told(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    return said if error.filename is None else f"{error.filename}: {said}"


def _let_go_of_output() -> None:
    """Where it cannot be written, Python would try again at its end, and tell of that at length."""
    if sys.stdout is None:  # closed by who started us
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

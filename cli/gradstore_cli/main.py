"""`gradstore`: the library said aloud.

A mistake of the user's is one clear message on stderr and exit status 1 (2 for wrong usage); a bug keeps its
traceback. Ctrl-C stops a command at once, with status 130. SIGTERM, which a job scheduler sends some time before it
kills, lets a build finish the shards in hand, and stops at once whatever has none; a second one always does; the
status is 143. Nothing committed is ever lost, and the command that goes on is named.
"""

from __future__ import annotations

import shlex
import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import gradstore
from gradstore.errors import GradstoreError
from gradstore_cli.append import append
from gradstore_cli.build import build
from gradstore_cli.credibility import credibility
from gradstore_cli.demo import demo
from gradstore_cli.diff import diff
from gradstore_cli.fidelity import fidelity
from gradstore_cli.forget import forget
from gradstore_cli.graph import graph
from gradstore_cli.index import index
from gradstore_cli.neighbours import neighbours
from gradstore_cli.opponents import opponents
from gradstore_cli.proponents import proponents
from gradstore_cli.rank_outliers import rank_outliers
from gradstore_cli.run import run
from gradstore_cli.selftest import selftest
from gradstore_cli.show import show
from gradstore_cli.status import status
from gradstore_cli.submit import submit
from gradstore_cli.verify import verify
from gradstore_pipelines import stopping

_INTERRUPTED = "Interrupted. Everything committed is kept: run the same command to go on."


class _Commands(TyperGroup):
    """Turns errors into a message and an exit status, for every command alike."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone shows here, where typer stays quiet about it
        except GradstoreError as error:
            _fail(error)
        except KeyboardInterrupt as interrupt:
            typer.echo(_goodbye(interrupt), err=True)
            raise typer.Exit(143 if isinstance(interrupt, stopping.Stopped) else 130) from None
        return result


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo,
    build,
    run,
    submit,
    rank_outliers,
    proponents,
    opponents,
    neighbours,
    credibility,
    index,
    graph,
    fidelity,
    selftest,
    status,
    show,
    verify,
    forget,
    append,
    diff,
):
    app.command()(command)


def main() -> None:
    """Entry point of the `gradstore` command."""
    signal.signal(signal.SIGTERM, _terminate)
    app(prog_name="gradstore")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gradstore {gradstore.__version__}")
        raise typer.Exit


@app.callback()
def _gradstore(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Which of my training examples are bad, and which examples does this one
    rest on?

    Results go to stdout, progress and words to stderr. Every command explains
    itself: gradstore COMMAND --help.

    Example:
      gradstore demo
      gradstore build digits.npz --store digits.store
      gradstore rank-outliers digits.store
    """


def _fail(error: GradstoreError) -> NoReturn:
    typer.echo("\n".join([f"Error: {error}", *getattr(error, "__notes__", ())]), err=True)
    raise typer.Exit(1) from None


def _goodbye(interrupt: KeyboardInterrupt) -> str:
    """What was done at the end, and how to go on."""
    if not str(interrupt):
        return _INTERRUPTED
    return f"{interrupt} To go on:\n  {shlex.join(['gradstore', *sys.argv[1:]])}"


def _terminate(number: int, frame: FrameType | None) -> None:
    if not stopping.ask():
        raise stopping.Stopped

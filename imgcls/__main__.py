"""`python -m imgcls` and `torchrun -m imgcls`: the same as the `imgcls` command."""

import atexit
import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line, and end the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command line catches it: no traceback out of an import
    from imgcls.cli.app import app
    from imgcls.machine import keep_freed_memory, tune_openmp

    keep_freed_memory()
    tune_openmp()
    try:
        app(prog_name="imgcls")
    except SystemExit as end:
        if "torch" in sys.modules and isinstance(end.code, int):
            _end_at_once(end.code)
        raise


def _end_at_once(code: int) -> None:
    """End without Python's taking all modules apart: 1.2 s once torch and torchvision are imported."""
    atexit._run_exitfuncs()
    with suppress(OSError):  # then Python ends as it always does
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()

"""`python -m example_app`: see what the middleware saves, in a table and then on a page."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

INSTALL = " && ".join(  # noqa: FLY002  one line to copy, three here
    (
        "python3 -m venv .venv",
        ".venv/bin/python -m pip install -q -e '.[example]'",
        ".venv/bin/python -m example_app",
    )
)
UNREADY = 2


def main() -> int:
    try:
        _ctrl_c_like_signals()
        options = _options()
        if shutil.which("git") is None:
            return _unready(
                "The example runs the git program, and there is none in PATH.", "sudo apt install git"
            )
        try:
            from .run import run  # noqa: PLC0415  what it imports is in the extra
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] == "example_app":
                raise
            return _unready(f"The example needs its extra ({missing.name} is not installed).", INSTALL)
        return run(options)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("\n  Stopped.", file=sys.stderr, flush=True)
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m example_app",
        description="Runs a page refresh against a real backend, first without and then with the middleware,"
        " prints what it cost, and serves a page to look into it.",
    )
    parser.add_argument(
        "--once", action="store_true", help="stop after the table; exit 1 when a mark is missed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument(
        "--otlp", type=_url, metavar="URL", help="export spans and metrics, e.g. http://localhost:4318"
    )
    parser.add_argument(
        "--otlp-metrics",
        type=_url,
        metavar="URL",
        help="beside --otlp: export metrics there instead (the full URL)",
    )
    parser.add_argument(
        "--repo", type=Path, metavar="PATH", help="read this git repository (never written to by the run)"
    )
    parser.add_argument("--port", type=_port, default=8000, help="the page's port (default: 8000)")
    parser.add_argument(
        "--wait-for-ready", action="store_true", help="wait until a transcript is ready, not for a second"
    )
    parser.add_argument(
        "--traffic",
        action="store_true",
        help="keep pages refreshing behind the page, for the dashboard to show",
    )
    options = parser.parse_args()
    if options.json and (problem := _unwritable(options.json.absolute())):
        parser.error(f"--json {options.json}: {problem}")  # now, not after the run
    if options.otlp_metrics and not options.otlp:
        parser.error("--otlp-metrics goes beside --otlp")
    return options


def _unwritable(file: Path) -> str | None:
    """Why nothing can be written there; a file that was not there is not there afterwards."""
    try:
        if not file.parent.is_dir():
            return "there is no such folder"
        new = not file.exists()
        file.open("ab").close()
    except OSError as error:
        return error.strerror or str(error)
    if new:
        file.unlink()
    return None


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with http:// or https://")
    try:
        parts = urlsplit(text)
        named = parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, or no port
        named = False
    if not named:
        raise argparse.ArgumentTypeError(f"{text!r} names no host and port")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; 0 to 65535")
    return int(text)


def _unready(problem: str, remedy: str) -> int:
    print(f"{problem}\n\n    {remedy}\n", file=sys.stderr)
    return UNREADY


def _ctrl_c_like_signals() -> None:
    """SIGTERM and a closed terminal end the run as Ctrl-C does: everything that was started is ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: signal.raise_signal(signal.SIGINT))


if __name__ == "__main__":
    sys.exit(main())

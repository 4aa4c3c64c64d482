"""`python -m cljax.study report`: one Markdown page over every experiment of a folder."""

import argparse
import sys

from cljax.study.report import page


def command(arguments):
    """Does what the arguments ask and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cljax.study", description="Reads the results of experiments.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("report", help="write one Markdown page over every experiment of a folder, and print its path", allow_abbrev=False)
    one.add_argument("--out", default="runs", metavar="DIR", help="the folder of results (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        print(page(options.out))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))

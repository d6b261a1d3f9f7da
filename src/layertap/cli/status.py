"""The command `layertap status`, which shows how far a folder of features is."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from layertap.cli.options import add_command
from layertap.cli.tables import print_facts
from layertap.errors import printable
from layertap.words import aligned, counted, in_bytes

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.jobs.folder.status import FolderStatus

MOST_LISTED = 10

DESCRIPTION = """\
Shows which shards of a folder of features are finished, missing, damaged or failed. The exit code is 0 if the
folder is complete, 3 if shards are missing, and 1 if files are damaged.

Existence and sizes of the files are compared with their records; --verify reads every file and compares its
hash. The next run of `layertap extract` makes damaged shards anew."""
EPILOG = """\
examples:
  layertap status features/
  layertap status features/ --verify
  layertap status features/ --json"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "status",
        run,
        summary="how far a folder of features is",
        usage="layertap status FOLDER/ [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER/", help="a folder of features")
    parser.add_argument("--verify", action="store_true", help="read every file and compare its hash")
    parser.add_argument("--json", action="store_true", help="print the status as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the status of the folder, and return its exit code."""
    from layertap.data.folder import folder_root
    from layertap.jobs.folder.status import folder_status

    status = folder_status(folder_root(options.folder), name=printable(options.folder), verify=options.verify)
    if options.json:
        print(json.dumps(status.as_dict(), indent=2))
    else:
        _print(status)
    return status.exit_code


def _print(status: FolderStatus) -> None:
    """Print a status: facts, then what is wrong, a line each."""
    values = status.as_dict()
    plan, finished = status.plan, status.finished
    rows = [("folder", f"{status.name}, {values['state']}{', every file verified' if status.is_verified else ''}")]
    results = [(schema.name, f"{schema.described} a text") for schema in plan.schemas]
    rows += [("features" if i == 0 else "", line) for i, line in enumerate(aligned(results, indent=""))]
    rows.append(("model", str(values["model"])))
    rows.append(("inputs", f"{len(plan.inputs):,} with {counted(plan.rows, 'row')}"))
    share = f" ({len(finished.records) / len(plan.shards):.0%})" if plan.shards else ""
    rows.append(("shards", f"{len(finished.records):,} of {len(plan.shards):,} finished{share}"))
    left_out = f", {values['rows_left_out']:,} left out" if values["rows_left_out"] else ""
    rows.append(("texts", f"{values['rows']:,} in {counted(values['tokens'], 'token')}{left_out}"))
    rows.append(("size", in_bytes(values["bytes"])))
    if status.driver:
        host, process, started = (status.driver.get(key) for key in ("host", "process", "started"))
        rows.append(("run", f"process {process} on {host} since {started}; it is at work, or was killed"))
    if status.missing:
        rows.append(("missing", _listed(status.missing)))
    rows += [("damaged", f"shard {number}: {fault}") for number, fault in sorted(finished.damaged.items())]
    rows += [("failed", f"shard {number}: {why}") for number, why in status.failures.items()]
    print_facts(rows, stream=sys.stdout)


def _listed(numbers: tuple[int, ...]) -> str:
    more = len(numbers) - MOST_LISTED
    return f"shards {', '.join(map(str, numbers[:MOST_LISTED]))}{f' and {more:,} more' if more > 0 else ''}"

"""Write the tables of ``benchmarks/README.md`` from the JSON files in ``benchmarks/results/``, and those of the pages.

python benchmarks/tables.py            # rewrites the text between the markers, and measured truths as CSV
python benchmarks/tables.py --check    # exits with 1 if a file would change
python benchmarks/tables.py accuracy   # rewrites this table only
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import pages
from benchmarks.accuracy.tables import accuracy, protocols, search
from benchmarks.continual.tables import continual, experience, streams, tuning
from benchmarks.nas.tables import nas, write_truths
from benchmarks.record import HERE, RESULTS, Record, parser, read
from benchmarks.speed.tables import epoch, growth, loop, mapped, memory, pace, ranks, speed, stages

Table = Callable[[list[Record]], Iterator[str]]
TABLES: dict[str, Table] = {
    table.__name__: table
    for table in (
        accuracy,
        search,
        pace,
        protocols,
        continual,
        tuning,
        experience,
        streams,
        loop,
        speed,
        epoch,
        stages,
        growth,
        ranks,
        memory,
        mapped,
        nas,
    )
}


def rewritten(text: str, records: list[Record], names: Sequence[str]) -> str:
    """The text with new tables between the markers of these names."""
    for name in names:
        body = "\n".join(TABLES[name](records)).rstrip() or "No results yet."
        before, begin, rest = text.partition(f"<!-- {name}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        text = f"{before}{begin}\n{body}\n\n{end}{after}" if end else text
    return text


def main() -> None:
    """Rewrite or check the README and the pages."""
    options = parser(__doc__)
    options.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)} (default: all)")
    options.add_argument(
        "--check", action="store_true", help="change no file; exit with 1 if the tables are out of date"
    )
    args = options.parse_args()
    records = [read(path) for path in sorted(RESULTS.rglob("*.json"))]
    readme = HERE / "README.md"
    texts = {readme: rewritten(readme.read_text(), records, args.tables or list(TABLES))}
    texts |= {page: pages.rewritten(page.read_text(), texts[readme]) for page in pages.PAGES}
    if args.check:
        sys.exit(int(any(text != path.read_text() for path, text in texts.items())))
    for path, text in texts.items():
        path.write_text(text)
    write_truths(records, RESULTS / "nas")


if __name__ == "__main__":
    main()

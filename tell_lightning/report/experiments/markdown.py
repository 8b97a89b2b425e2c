"""The report as Markdown: the claims and every table; the figures are on the page beside it.

Claims and sections enter, text leaves.
"""

from collections.abc import Sequence

from tell_lightning.report.experiments.claims import Claim
from tell_lightning.report.experiments.sections import Section, Table


def markdown(
    title: str, facts: Sequence[str], found: Sequence[Claim], sections: Sequence[Section]
) -> str:
    """Write the report.

    Args:
        title: Its first line.
        facts: Lines below it.
        found: The claims.
        sections: What follows them.
    """
    lines = [f"# {escaped(title)}", "", *(f"{escaped(fact)}  " for fact in facts), ""]
    lines += ["## Claims", ""]
    for claim in found:
        lines += [
            f"### {escaped(claim.title)}: {claim.whole.word}",
            "",
            escaped(claim.claim),
            "",
            f"Refuted by: {escaped(claim.refuted_by)}  ",
            f"Rule `{claim.digest}`: {escaped(claim.rule)}  ",
            f"{escaped(claim.progress)}; {escaped(claim.whole.reason)}.",
            "",
            row(["Testbed", "Verdict", claim.measure or "Number", "Why"]),
            row(["---"] * 4),
            *(
                row([each.label, f"{each.sign} {each.word}", each.number, escaped(each.reason)])
                for each in claim.testbeds
            ),
            "",
        ]
    for section in sections:
        lines += [f"## {escaped(section.title)}", ""]
        for text in section.texts:
            lines += [escaped(text), ""]
        for table in (*section.tables, *section.folded):
            lines += _table(table)
    return "\n".join(lines).rstrip() + "\n"


def row(cells: Sequence[str]) -> str:
    """Write a row of a table."""
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Keep a text on its line, in its cell and out of HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(table: Table) -> list[str]:
    texts = [[escaped(cell.text) for cell in cells] for cells in table.rows]
    lines = [f"### {escaped(table.title)}", ""] if table.title else []
    lines += [row([escaped(name) for name in table.columns]), row(["---"] * len(table.columns))]
    lines += [row(cells) for cells in texts]
    return [*lines, "", *([escaped(table.note), ""] if table.note else [])]

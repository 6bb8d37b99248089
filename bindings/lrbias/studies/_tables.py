"""Markdown tables."""


def markdown(heads, rows):
    """Lines of a table: `heads`, and a row of as many cells for each of `rows`."""
    return [_line(heads), _line(["---"] * len(heads)), *(_line(row) for row in rows)]


def _line(cells):
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"

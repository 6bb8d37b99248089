"""What a command that trained a network prints and draws at its end."""

import sys

from lrbias.cli._console import EXIT_DIVERGED, complain, show


def finish(result, expected, figures, formats, as_json):
    """Figures, facts and the exit code at the end of a run."""
    facts = result.summary()
    if expected is not None:
        facts["forecast_escape_steps"] = expected.escape_steps
        facts["forecast_outcomes"] = expected.outcomes
    written = facts["figures"] = _figures(result, figures, formats) if figures else []
    lines = [repr(result), *_escape_table(facts)]
    if written:
        lines.append(f"figures: {figures}")
    show(facts, "\n".join(lines), as_json)
    if result.status == "diverged":
        print(f"lrbias: diverged: {result.detail}.", file=sys.stderr)
        return EXIT_DIVERGED
    return 0


def _figures(run, folder, formats):
    """Draw the figures of a run that has ended; returns the paths. Whatever goes wrong there, the run is complete."""
    from lrbias.system import shell_command

    try:
        from lrbias import plots

        return [str(path) for path in plots.save(run, folder, formats)]
    except Exception as error:
        reason = str(error).rstrip(".")
        complain(f"warning: {reason}. The run is complete; to draw its figures: {shell_command('plot', run.path)}")
        return [str(path) for path in getattr(error, "paths", [])]


def _escape_table(facts):
    measured, expected = facts.get("escape_steps"), facts.get("forecast_escape_steps")
    if not measured or not expected:
        return []
    from lrbias.forecasts import told_escape

    lines = ["  mode   half learnt at step  forecast"]
    rows = zip(measured, expected, facts["forecast_outcomes"], strict=False)
    for i, (step, forecast, outcome) in enumerate(rows, start=1):
        told = told_escape(forecast, outcome, facts["steps"])
        lines.append(f"  {i:<6} {step if step is not None else 'not yet':<20} {told}")
    return lines

"""The command `reproduce`: one sub-command a study, whose flags are the fields of its parameters."""

import inspect
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import App, Parameter

from lrbias.cli._console import Flag, IntegerFlag, Numbers, Place, Sizes, Store, Words, show, show_forecast
from lrbias.settings import default_of

HELP = ("--help", "-h")
KEYWORD = inspect.Parameter.KEYWORD_ONLY
FLAGS = {int: IntegerFlag, float: float | None, Path: Place | None, str: str | None}
LISTS = {int: Sizes, float: Numbers, str: Words}


def reproduce(*words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]):
    """Make the runs of a study and print the evidence for its claims: statistic, definition, value, verdict.

    The same command again goes on where it was stopped. `lrbias reproduce NAME --help` lists the flags of a study.
    """
    from lrbias.studies import all_studies, find_study, study_names

    names = study_names()
    name = next((word for word in words if word in names), None)
    if name is None and not set(HELP).isdisjoint(words):
        return _app(all_studies())(HELP[:1])
    if name is None:
        name = next((word for word in words if not word.startswith("-")), "")
    study = find_study(name)
    others = list(words)
    others.remove(name)
    return _app([study])([name, *others])


def _app(studies):
    """A command for each of the studies; errors are for the caller."""
    about = inspect.getdoc(reproduce)
    usual = {
        "exit_on_error": False,
        "print_error": False,
        "result_action": "return_value",
        "suppress_keyboard_interrupt": False,
    }
    app = App(name="lrbias reproduce", help=about, help_format="plaintext", version_flags=(), **usual)
    for study in studies:
        app.command(_command(study), name=study.name, help=study.summary)
    return app


def _command(study):
    """The function of a study, with a flag for each of its parameters that a word or a list of words can be."""
    flags = {name: _annotated(field) for name, field in study.Parameters.model_fields.items()}
    own = [inspect.Parameter(name, KEYWORD, default=None, annotation=flag) for name, flag in flags.items() if flag]
    common = [each for each in inspect.signature(_carry_out).parameters.values() if each.kind == KEYWORD]

    def command(**given):
        parameters = {each.name: given.pop(each.name, None) for each in own}
        return _carry_out(study, parameters, **given)

    made: Any = command
    made.__signature__ = inspect.Signature([*own, *common])
    made.__annotations__ = {each.name: each.annotation for each in (*own, *common)}
    return made


def _annotated(field):
    """The flag of a parameter; None for one that only Python can give."""
    kind = _bare(field.annotation)
    items = [_bare(item) for item in get_args(kind) if item is not Ellipsis] if get_origin(kind) is tuple else []
    flag = LISTS.get(items[0]) if items else FLAGS.get(kind)
    if flag is None:
        return None
    return Annotated[flag, Parameter(help=f"{field.description} [default: {default_of(field)}]")]


def _bare(annotation):
    """The type itself, without what is noted beside it: the first of several, str for one of a few words."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _bare(next(kind for kind in get_args(annotation) if kind is not type(None)))
    return str if get_origin(annotation) is Literal else annotation


def _carry_out(
    study,
    parameters,
    *,
    store: Annotated[Store, Parameter(help="The folder of the study; by default reproduced/NAME.")] = None,
    workers: Annotated[IntegerFlag, Parameter(help="Processes or threads; by default one for each core.")] = None,
    format: Annotated[Words, Parameter(help="Figure formats: png, pdf, svg.")] = None,
    dry_run: Annotated[Flag, Parameter(help="Say how many runs there are and what they will take, and stop.")] = False,
    json: Annotated[Flag, Parameter(help="Print the evidence as JSON on stdout.")] = False,
    quiet: Annotated[Flag, Parameter(help="Show neither forecast nor progress.")] = False,
):
    from lrbias.settings import check_formats
    from lrbias.system import goes_on_in

    formats = check_formats(format or ("png", "pdf"))
    made = study(store, workers, not quiet, **parameters)
    if dry_run or not quiet:
        show_forecast(made.forecast(), json, only=dry_run)
    if dry_run:
        return 0
    with goes_on_in(made.store):
        evidence = made.run()
        written = [str(path) for path in evidence.save(formats)]
    show({**evidence.as_dict(), "written": written}, "\n".join([str(evidence), "", *written]), json)
    return 0

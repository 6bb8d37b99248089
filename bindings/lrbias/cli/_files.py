"""The commands about experiment files: init, schema."""

import json as json_
from pathlib import Path

from lrbias.cli._console import File


def init(file: File = Path("experiment.toml"), /):
    """Write a commented experiment file, in which every setting stands with its meaning and its default.

    Parameters
    ----------
    file
        The file to make, which must not exist.
    """
    from lrbias.errors import check
    from lrbias.experiments import template
    from lrbias.system import write_file

    check(not file.exists(), "file", str(file), "a file that does not exist yet")
    check(file.parent.is_dir(), "file", str(file), "a file in a folder that exists")
    write_file(file, template().encode())
    print(f"{file}: lrbias run {file}")
    return 0


def schema():
    """Print the JSON schema of experiment files, with which editors complete and check them.

    lrbias schema > lrbias.schema.json; a file that begins with the line "#:schema lrbias.schema.json" is checked.
    """
    from lrbias.experiments import schema as made

    print(json_.dumps(made(), indent=1, ensure_ascii=False))
    return 0

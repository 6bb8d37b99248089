"""python -m lrbias: the console command."""

from lrbias.cli import main

main()

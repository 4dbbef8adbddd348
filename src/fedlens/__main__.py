"""``python -m fedlens``: the command line, where its script is not on the path."""

from fedlens.cli.main import main

main()

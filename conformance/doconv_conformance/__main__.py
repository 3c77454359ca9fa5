"""`python -m doconv_conformance` is the command `doconv`."""

from doconv_conformance.cli import main

main()

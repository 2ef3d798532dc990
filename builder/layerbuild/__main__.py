"""`python -m layerbuild`."""

from layerbuild.cli.main import main

main()

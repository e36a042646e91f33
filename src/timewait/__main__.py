"""`python -m timewait` is the same command, wherever the script lies."""

from timewait.cli import main

main()

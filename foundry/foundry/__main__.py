"""`python -m foundry`: the foundry command."""

from foundry.cli import main

main()

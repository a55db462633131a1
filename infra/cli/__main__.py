"""`python -m infra.cli`: the `fabrating` command where the console script is not installed."""

from infra.cli.main import main

main()

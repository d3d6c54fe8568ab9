"""`python -m fer_core STEP …`: the steps where there is no orchestrator, in a container say."""

from fer_core.cli import main

main()

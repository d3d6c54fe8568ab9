"""`python -m fer_core STEP …`: run one step without an orchestrator, for example in a container."""

from fer_core.cli import main

main()

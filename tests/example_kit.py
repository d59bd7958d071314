"""The test kit of the example."""

BRIEFLY = """
import sys
from example_app import __main__ as command, measure, writes
measure.PAGES = measure.REFRESHES = measure.HITS = 1
writes.ROUNDS.update(dict.fromkeys(writes.ROUNDS, 1))
sys.exit(command.main())
"""
"""The command with next to no comparison before the page."""

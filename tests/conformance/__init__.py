"""The conformance suite of the HTTP cache: one row per normative sentence, run over real sockets.

`python -m tests.conformance` runs every row and prints what is wrong; `--table` prints the page of the docs.
"""

"""The pure half: decisions about HTTP caching and collapsing as functions of their arguments.

Law: nothing in here awaits, reads a clock, logs, does I/O or knows OpenTelemetry. Time is an argument.
"""

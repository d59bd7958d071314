"""A developer-tools backend, measured without and with the middleware: `python -m example_app`."""

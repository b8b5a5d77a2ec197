"""The report of one run as an HTML page: numbers, curves, pictures, tables, configuration and commands."""

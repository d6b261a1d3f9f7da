"""The command line: `main` and one small module per command.

Modules here import little at their top: `--help`, `--version` and refusals answer before numpy is loaded.
"""

"""The command line: one function per command, no logic of its own."""

from graphprune.cli.app import main as main

"""The scripts behind the Makefile; each has ``--help``."""

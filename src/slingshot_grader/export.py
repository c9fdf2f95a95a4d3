"""Grades and feedback packed as a learning platform takes them back."""


def main(argv):
    raise SystemExit("not yet")

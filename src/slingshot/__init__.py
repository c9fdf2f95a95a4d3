"""Slingshot: the small library behind a course on efficient AI development.

Each module is one idea and is read from top to bottom. Import the module you need, for example
``from slingshot.moe import TopKRouter``; importing the package itself does nothing.
"""

"""What the scripts share: consoles, what they inherit, and the state of .venv."""

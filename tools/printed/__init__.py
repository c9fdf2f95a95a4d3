"""What makes the printed book: its pages put together, and Chromium that prints them."""

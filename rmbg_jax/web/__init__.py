"""Serves the page: `service.py` does the work, `page.py` shows it."""

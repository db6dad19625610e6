"""The page: `service.py` works on files, `page.py` is what is seen of it."""

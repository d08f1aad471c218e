"""The exporting module needs torch, which is no test dependency; it has no doctests."""

collect_ignore = ["export_models.py"]

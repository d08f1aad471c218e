"""The hooks need mkdocs, which is no test dependency; they have no doctests."""

collect_ignore = ["docs_hooks.py"]

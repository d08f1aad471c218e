"""Reports: one HTML page that shows what was rewritten, how close it comes, which heads are hard, and what it costs.

Extra ``[report]``. `gather` collects plain values (`content`), `page` makes HTML of them, `write` puts it into a file.
"""

"""Reading and writing models, finding attention in them, and the rewrite."""

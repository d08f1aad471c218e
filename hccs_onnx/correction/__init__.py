"""Closed-form corrections of attention's output projections after the rewrite, without retraining."""

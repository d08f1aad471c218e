"""Mutation fuzzing of real models through inspect and rewrite."""

"""AI Engine back end: from a rewritten model to kernels, graphs and proofs that need no vendor tools."""

"""Calibration: reading samples, collecting sketches, fitting head parameters, and the calibration file."""

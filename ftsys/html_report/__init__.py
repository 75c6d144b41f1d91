"""Makes one HTML page of finished and running runs: curves, errors, calibration, speed, configuration."""

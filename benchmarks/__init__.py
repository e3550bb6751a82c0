"""Measurements of speed and precision; each is a command that writes one JSON file under results/."""

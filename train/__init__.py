"""Trains, measures and exports tessera, the language model the project ships."""

"""Tokenises, admits and micro-batches requests, and streams text back."""

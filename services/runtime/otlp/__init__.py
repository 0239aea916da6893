"""What OpenTelemetry's variables ask for, and how spans and metrics get to the collector that they
name.
"""

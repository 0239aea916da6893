"""Hosting that follows the load: plans made in a process apart, acted on with hysteresis, and
judged afterwards.
"""

"""What the gate sends to whom: counted as it happens, judged, recorded and read again."""

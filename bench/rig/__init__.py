"""What benches put their load on: checkpoints, clusters, services real and simulated."""

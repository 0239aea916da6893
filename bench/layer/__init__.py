"""One Mixture-of-Experts layer, part by part."""

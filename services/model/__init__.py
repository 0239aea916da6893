"""The model's side: checkpoint reading and splitting, KV cache, attention plug, sampler, embedded
model.
"""

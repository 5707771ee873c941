"""Where outputs live: stores, outputs with their manifests, shards and checkpoints."""

"""What the process of a caller knows of actors: handles, the calls under way, and the ways to the workers."""

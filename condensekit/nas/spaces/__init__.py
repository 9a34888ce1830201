"""Search spaces, their architectures, and the equivalence of architectures."""

"""Search spaces, their architectures, and which of these compute the same."""

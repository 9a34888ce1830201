"""Architecture search: how well rankers rank, against the truth."""

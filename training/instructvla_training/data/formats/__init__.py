"""Robot data in the formats it is published in: one `Episode` and one `EpisodeDataset` for all of them."""

"""Predictions for any number of rows: input read batch by batch, predictions written shard by shard and joined."""

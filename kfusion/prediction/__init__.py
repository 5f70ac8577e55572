"""Answers for any number of pairs: input read batch by batch, answers written shard by shard, joined at the end."""

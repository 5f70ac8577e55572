"""The network: encoders, fusion heads, and the function that joins them."""

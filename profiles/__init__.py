"""Shipped load profiles, one TOML file each; README.md here documents every key."""
